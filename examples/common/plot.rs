//! Drawings of the examples: curves over a common x axis, as SVG.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

/// Colours that differ for the colour-blind, too (Okabe and Ito 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(160, 120, 0),
];

/// A drawing of curves.
pub struct Plot<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    /// Whether the y axis is logarithmic; points that are not above 0 are left out.
    pub log: bool,
    /// Names and points.
    pub curves: Vec<(&'a str, Vec<(f64, f64)>)>,
}

impl Plot<'_> {
    /// Writes it to `FOLDER/NAME.svg`, and says so.
    pub fn save(&self, folder: &Path, name: &str) -> wgrad::Result<()> {
        std::fs::create_dir_all(folder).map_err(|source| wgrad::Error::Io { path: folder.into(), source })?;
        let path = folder.join(format!("{name}.svg"));
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, (720, 420)).into_drawing_area())
            .map_err(|e| wgrad::Error::File { path: path.clone(), message: e.to_string() })?;
        wgrad::io::write_atomically(&path, svg.as_bytes())?;
        println!("drawn: {}", path.display());
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
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(left..right, bottom - margin..top + margin)?;
        let label = |y: &f64| if self.log { format!("{:.2e}", 10f64.powf(*y)) } else { short(*y) };
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
        for ((name, points), colour) in curves.into_iter().zip(COLOURS.into_iter().cycle()) {
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(("sans-serif", 13))
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// From the least to the greatest, and never empty.
fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let most = values.fold(f64::NEG_INFINITY, f64::max);
    if least < most { (least, most) } else { (least.min(0.0).max(-1e9) - 1.0, 1.0 + most.max(0.0).min(1e9)) }
}

/// A number without the digits that rounding leaves.
fn short(x: f64) -> String {
    let text = format!("{x:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
