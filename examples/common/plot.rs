//! Plots of the examples: curves over a common x axis, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

/// Colours that colour-blind readers can distinguish (Okabe and Ito 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(160, 120, 0),
];

const SIZE: (u32, u32) = (640, 400);
/// The width of the legend, to the right of the curves.
const KEY: u32 = 170;

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
        std::fs::create_dir_all(folder).map_err(|source| wgrad::Error::Io { path: folder.into(), source })?;
        let path = folder.join(format!("{name}.svg"));
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, (SIZE.0 + KEY, SIZE.1)).into_drawing_area())
            .map_err(|e| wgrad::Error::File { path: path.clone(), message: e.to_string() })?;
        wgrad::io::write_atomically(&path, svg.as_bytes())?;
        println!("plot: {}", path.display());
        Ok(())
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

        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .margin_right(KEY)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(left..right, bottom - margin..top + margin)?;
        let label = |y: &f64| short(if self.log { 10f64.powf(*y) } else { *y });
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&label)
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .label_style(("sans-serif", 13))
            .draw()?;
        for (number, ((name, points), colour)) in curves.into_iter().zip(COLOURS.into_iter().cycle()).enumerate() {
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
            let (x, y) = (SIZE.0 as i32 + 14, 50 + 20 * number as i32);
            area.draw(&PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)))?;
            area.draw(&Text::new(name, (x + 24, y - 6), ("sans-serif", 13)))?;
        }
        area.present()?;
        Ok(())
    }
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

/// A number with about two digits.
fn short(x: f64) -> String {
    if x != 0.0 && x.abs() < 0.01 {
        return format!("{x:.0e}");
    }
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
