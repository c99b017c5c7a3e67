//! Plots of the examples, as SVG: curves over a common x axis, planes of points by class, and matrices.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Colours that colour-blind readers can distinguish (Okabe and Ito 2008), and their counterparts on a dark ground.
const COLOURS: [(RGBColor, &str); 6] = [
    (RGBColor(0, 114, 178), "#56a9e8"),
    (RGBColor(213, 94, 0), "#f08a3c"),
    (RGBColor(0, 158, 115), "#2fc296"),
    (RGBColor(204, 121, 167), "#e29ac4"),
    (RGBColor(86, 180, 233), "#9bd7ff"),
    (RGBColor(160, 120, 0), "#d8b13c"),
];
/// Ten colours for classes: the nine of P. Tol's scheme *muted* (2021), of which readers with any form of colour
/// blindness can distinguish most, and grey.
const CLASSES: [(RGBColor, &str); 10] = [
    (RGBColor(51, 34, 136), "#8f83e8"),
    (RGBColor(136, 204, 238), "#88cced"),
    (RGBColor(68, 170, 153), "#44aa98"),
    (RGBColor(17, 119, 51), "#2f9e55"),
    (RGBColor(153, 153, 51), "#a8a83c"),
    (RGBColor(221, 204, 119), "#ddcc76"),
    (RGBColor(204, 102, 119), "#cc6678"),
    (RGBColor(136, 34, 85), "#b8477f"),
    (RGBColor(170, 68, 153), "#bb58ab"),
    (RGBColor(136, 136, 136), "#999999"),
];
const GRID: RGBColor = RGBColor(225, 225, 225);

const SIZE: (u32, u32) = (640, 400);
/// The width of the names, to the right of the curves.
const NAMES: u32 = 170;
/// The height of a name.
const LINE: f64 = 16.0;

/// A plot of curves.
pub struct Plot<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    /// Whether the y axis is logarithmic; points with y <= 0 are omitted.
    pub log: bool,
    /// Names and points.
    pub curves: Vec<(&'a str, Vec<(f64, f64)>)>,
}

impl Plot<'_> {
    /// Writes the plot to `FOLDER/NAME.svg` and prints the path.
    pub fn save(&self, folder: &Path, name: &str) -> wgrad::Result<()> {
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, (SIZE.0 + NAMES, SIZE.1)).into_drawing_area())
            .map_err(|e| wgrad::Error::File { path: folder.join(name), message: e.to_string() })?;
        write(&svg, &COLOURS, folder, name)
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Box<dyn Error>> {
        let height = |y: f64| if self.log { y.log10() } else { y };
        let curves: Vec<(&str, Vec<(f64, f64)>)> = self
            .curves
            .iter()
            .map(|(name, points)| (*name, points.iter().map(|&(x, y)| (x, height(y))).collect::<Vec<_>>()))
            .map(|(name, points)| (name, points.into_iter().filter(|(_, y)| y.is_finite()).collect()))
            .collect();
        let all = || curves.iter().flat_map(|(_, points)| points);
        let (left, right) = range(all().map(|p| p.0));
        let (bottom, top) = range(all().map(|p| p.1));
        let margin = 0.04 * (top - bottom);
        let (bottom, top) = (bottom - margin, top + margin);
        let (x_ticks, x_digits) = ticks(left, right);
        let (y_ticks, y_digits) = if self.log { log_ticks(bottom, top) } else { ticks(bottom, top) };
        let y_label = |y: &f64| match self.log {
            true => decimal(10f64.powf(*y)),
            false => format!("{y:.y_digits$}"),
        };
        let widest = y_ticks.iter().map(|tick| y_label(tick).len()).max().unwrap_or(0) as u32;

        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .margin_right(NAMES)
            .x_label_area_size(40)
            .y_label_area_size(30 + 7 * widest)
            .build_cartesian_2d(Axis(left..right, x_ticks), Axis(bottom..top, y_ticks))?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|x| format!("{x:.x_digits$}"))
            .y_label_formatter(&y_label)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .label_style(("sans-serif", 13))
            .draw()?;
        // Each name is beside the end of its curve, or as near to it as the other names allow.
        let mut ends = Vec::new();
        for ((name, points), (colour, _)) in curves.into_iter().zip(COLOURS.into_iter().cycle()) {
            if let Some(&end) = points.last() {
                ends.push((chart.backend_coord(&end), name, colour));
            }
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        }
        ends.sort_by_key(|((_, y), ..)| *y);
        let (_, ys) = chart.plotting_area().get_pixel_range();
        let wanted: Vec<f64> = ends.iter().map(|((_, y), ..)| f64::from(*y)).collect();
        let places = apart(&wanted, LINE, f64::from(ys.start), f64::from(ys.end));
        let edge = chart.plotting_area().get_pixel_range().0.end;
        for (((x, y), name, colour), place) in ends.into_iter().zip(places) {
            area.draw(&Circle::new((x, y), 3, colour.filled()))?;
            // Dotted, so that nobody takes it for a part of the curve.
            let to = (edge + 14, place.round() as i32);
            let dots = ((to.0 - x) / 5).max(1);
            for dot in 1..=dots {
                let dot = (x + (to.0 - x) * dot / dots, y + (to.1 - y) * dot / dots);
                area.draw(&Circle::new(dot, 1, colour.filled()))?;
            }
            let style = ("sans-serif", 13).into_text_style(area).color(&colour);
            let style = style.pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(name, (to.0 + 6, to.1), style))?;
        }
        area.present()?;
        Ok(())
    }
}

/// Planes of points, side by side. Points of a class have one colour, and the name of the class at their mean.
pub struct Scatter<'a> {
    pub classes: &'a [&'a str],
    /// Names, and the points of each class.
    pub planes: Vec<(&'a str, Vec<Vec<[f64; 2]>>)>,
}

/// The side of a plane, and the space around it.
const PLANE: f64 = 440.0;
const SPACE: f64 = 12.0;

impl Scatter<'_> {
    /// Writes the planes to `FOLDER/NAME.svg` and prints the path.
    pub fn save(&self, folder: &Path, name: &str) -> wgrad::Result<()> {
        let size = (self.planes.len() as f64 * (PLANE + SPACE) + SPACE, PLANE + 2.0 * SPACE + LINE);
        let mut svg = format!(
            "<svg width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" xmlns=\"http://www.w3.org/2000/svg\">\n\
             <rect width=\"{0}\" height=\"{1}\" fill=\"{2}\"/>\n",
            size.0,
            size.1,
            hex(WHITE)
        );
        for (number, (title, classes)) in self.planes.iter().enumerate() {
            let corner = [SPACE + number as f64 * (PLANE + SPACE), SPACE + LINE];
            svg += &format!(
                "<g font-family=\"sans-serif\" text-anchor=\"middle\" fill=\"none\" stroke-linecap=\"round\">\n\
                 <text x=\"{}\" y=\"{}\" font-size=\"15\" fill=\"{}\">{title}</text>\n",
                corner[0] + PLANE / 2.0,
                corner[1] - 6.0,
                hex(BLACK)
            );
            svg += &self.plane(classes, corner);
            svg += "</g>\n";
        }
        write(&(svg + "</svg>\n"), &CLASSES, folder, name)
    }

    /// The points of the classes, then their names.
    fn plane(&self, classes: &[Vec<[f64; 2]>], corner: [f64; 2]) -> String {
        let ranges = [0, 1].map(|axis| range(classes.iter().flatten().map(move |point| point[axis])));
        let place = |point: [f64; 2]| {
            let [x, y] = [0, 1].map(|axis| (point[axis] - ranges[axis].0) / (ranges[axis].1 - ranges[axis].0));
            [corner[0] + 6.0 + x * (PLANE - 12.0), corner[1] + 6.0 + (1.0 - y) * (PLANE - 12.0)]
        };
        let [x, y] = corner;
        let mut svg = format!("<path d=\"M{x} {y}h{PLANE}v{PLANE}h-{PLANE}z\" stroke=\"{}\"/>\n", hex(GRID));
        for (points, (colour, _)) in classes.iter().zip(CLASSES.into_iter().cycle()) {
            // Points are lines of no length with round ends: the shortest form.
            let points: String = points.iter().map(|p| place(*p)).map(|[x, y]| format!("M{x:.0} {y:.0}h0")).collect();
            svg += &format!("<path d=\"{points}\" stroke=\"{}\" stroke-width=\"5\"/>\n", hex(colour));
        }
        for (name, points) in self.classes.iter().zip(classes).filter(|(_, points)| !points.is_empty()) {
            let mean = [0, 1].map(|axis| points.iter().map(|p| p[axis]).sum::<f64>() / points.len() as f64);
            let [x, y] = place(mean);
            svg += &format!(
                "<text x=\"{x:.0}\" y=\"{:.0}\" font-size=\"20\" font-weight=\"bold\" fill=\"{}\" stroke=\"{}\" \
                 stroke-width=\"5\" paint-order=\"stroke\">{name}</text>\n",
                y + 7.0,
                hex(BLACK),
                hex(WHITE)
            );
        }
        svg
    }
}

/// Matrices of numbers from 0 to 1, two in a row: the darker, the larger. Each row and column has a character.
pub struct Matrices {
    /// The characters of the rows and of the columns, and the numbers, row by row.
    pub matrices: Vec<(String, String, Vec<f64>)>,
}

/// The side of a cell.
const CELL: usize = 15;

impl Matrices {
    /// Writes the matrices to `FOLDER/NAME.svg` and prints the path.
    pub fn save(&self, folder: &Path, name: &str) -> wgrad::Result<()> {
        let count = |text: &String| text.chars().count();
        let width = self.matrices.iter().map(|(_, columns, _)| count(columns)).max().unwrap_or(0);
        let height = self.matrices.iter().map(|(rows, ..)| count(rows)).max().unwrap_or(0);
        let tile = [width, height].map(|cells| (cells + 3) * CELL); // one for the characters, two of space
        let size = [2 * tile[0], self.matrices.len().div_ceil(2) * tile[1]];
        let mut svg = format!(
            "<svg width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" xmlns=\"http://www.w3.org/2000/svg\">\n\
             <rect width=\"{0}\" height=\"{1}\" fill=\"{2}\"/>\n",
            size[0],
            size[1],
            hex(WHITE)
        );
        for (number, matrix) in self.matrices.iter().enumerate() {
            svg += &Self::matrix(matrix, [number % 2 * tile[0] + 2 * CELL, number / 2 * tile[1] + 2 * CELL]);
        }
        write(&(svg + "</svg>\n"), &COLOURS, folder, name)
    }

    fn matrix((rows, columns, numbers): &(String, String, Vec<f64>), [left, top]: [usize; 2]) -> String {
        let (height, width) = (rows.chars().count(), columns.chars().count());
        let mut svg = format!(
            "<g font-family=\"monospace\" font-size=\"14\" text-anchor=\"middle\" fill=\"{}\">\n\
             <path d=\"M{left} {top}h{}v{}H{left}z\" fill=\"none\" stroke=\"{}\"/>\n",
            hex(BLACK),
            width * CELL,
            height * CELL,
            hex(GRID)
        );
        for (column, character) in columns.chars().enumerate() {
            let x = left + column * CELL + CELL / 2;
            svg += &format!("<text x=\"{x}\" y=\"{}\">{}</text>", top - 4, escaped(character));
        }
        for (row, character) in rows.chars().enumerate() {
            let y = top + row * CELL + CELL - 3;
            svg += &format!("<text x=\"{}\" y=\"{y}\">{}</text>", left - 7, escaped(character));
        }
        // Cells are short, thick lines; those of about the same darkness are one path.
        for darkness in 1..=10 {
            let cells = numbers.iter().enumerate().filter(|(_, x)| (10.0 * **x).round() as usize == darkness);
            let line = |cell: usize| {
                let (x, y) = (left + cell % width * CELL, top + cell / width * CELL);
                format!("M{x} {y}.5h{CELL}", y = y + CELL / 2)
            };
            let lines: String = cells.map(|(cell, _)| line(cell)).collect();
            if !lines.is_empty() {
                svg += &format!(
                    "\n<path d=\"{lines}\" stroke=\"{}\" stroke-width=\"{CELL}\" stroke-opacity=\"{}\"/>",
                    hex(COLOURS[0].0),
                    darkness as f64 / 10.0
                );
            }
        }
        svg + "\n</g>\n"
    }
}

/// A character in XML.
fn escaped(character: char) -> String {
    match character {
        '&' => "&amp;".into(),
        '<' => "&lt;".into(),
        _ => character.into(),
    }
}

/// Writes an SVG with rules for dark pages to `FOLDER/NAME.svg` and prints the path.
fn write(svg: &str, colours: &[(RGBColor, &str)], folder: &Path, name: &str) -> wgrad::Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| wgrad::Error::Io { path: folder.into(), source })?;
    let path = folder.join(format!("{name}.svg"));
    let (head, body) = svg.split_once('\n').unwrap_or((svg, ""));
    wgrad::io::write_atomically(&path, format!("{head}\n{}\n{body}", dark(colours)).as_bytes())?;
    println!("plot: {}", path.display());
    Ok(())
}

fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// An axis with a range and ticks.
struct Axis(Range<f64>, Vec<f64>);

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let Range { start, end } = self.0;
        (f64::from(from) + (value - start) / (end - start) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.1.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.0.clone()
    }
}

/// Rules for readers who prefer dark pages.
fn dark(colours: &[(RGBColor, &str)]) -> String {
    let mut rules = format!(
        "rect[fill=\"{0}\"]{{fill:#0d1117}} text{{fill:#e6edf3}} text[stroke=\"{0}\"]{{stroke:#0d1117}} \
         [stroke=\"{1}\"]{{stroke:#30363d}} polyline[stroke=\"#000000\"]{{stroke:#8b949e}}",
        hex(WHITE),
        hex(GRID)
    );
    for (colour, on_dark) in colours {
        let hex = hex(*colour);
        rules += &format!(
            " [stroke=\"{hex}\"]{{stroke:{on_dark}}} text[fill=\"{hex}\"],circle[fill=\"{hex}\"]{{fill:{on_dark}}}"
        );
    }
    format!("<style>@media (prefers-color-scheme: dark) {{ {rules} }}</style>")
}

/// The range from minimum to maximum, never empty.
fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let most = values.fold(f64::NEG_INFINITY, f64::max);
    match least < most {
        true => (least, most),
        false if least.is_finite() => (least - 1.0, least + 1.0),
        false => (0.0, 1.0),
    }
}

/// Five to eight ticks at multiples of 1, 2 or 5 times a power of ten, and the number of their decimals.
fn ticks(from: f64, to: f64) -> (Vec<f64>, usize) {
    let rough = (to - from) / 8.0;
    let power = rough.log10().floor();
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * 10f64.powf(power)).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let first = (from / step).ceil() as i64;
    let ticks = (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= to + 1e-9 * step);
    // `+ 0.0` turns -0 into 0.
    (ticks.map(|tick| tick + 0.0).collect(), (-step.log10() - 1e-9).ceil().max(0.0) as usize)
}

/// The decimal logarithms of ticks at powers of ten; if these are few, also at 2 and 5 times powers of ten, or at all
/// multiples.
fn log_ticks(from: f64, to: f64) -> (Vec<f64>, usize) {
    let of = |factors: &[u32]| {
        let powers = from.floor() as i32..=to.ceil() as i32;
        let ticks = powers.flat_map(|power| factors.iter().map(move |f| f64::from(*f).log10() + f64::from(power)));
        ticks.filter(|tick| (from..=to).contains(tick)).collect::<Vec<f64>>()
    };
    let choices: [&[u32]; 3] = [&[1], &[1, 2, 5], &[1, 2, 3, 4, 5, 6, 7, 8, 9]];
    let enough = choices.iter().map(|factors| of(factors)).find(|ticks| ticks.len() >= 4);
    (enough.unwrap_or_else(|| of(choices[2])), 0)
}

/// A number with one digit that counts, such as 0.0002 or 30000.
fn decimal(x: f64) -> String {
    format!("{x:.*}", (-(x.log10() + 1e-9).floor()).max(0.0) as usize)
}

/// Moves sorted places apart to this distance, between two limits, each as little as possible.
fn apart(wanted: &[f64], distance: f64, from: f64, to: f64) -> Vec<f64> {
    let mut places = wanted.to_vec();
    for _ in 0..200 {
        for at in 1..places.len() {
            let missing = distance - (places[at] - places[at - 1]);
            if missing > 0.0 {
                places[at - 1] -= missing / 2.0;
                places[at] += missing / 2.0;
            }
        }
        places.iter_mut().for_each(|place| *place = place.clamp(from, to));
    }
    places
}
