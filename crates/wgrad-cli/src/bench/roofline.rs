//! A roofline plot (Williams, Waterman and Patterson, *Roofline: an insightful visual performance model*, CACM 52,
//! 2009): each kernel's rate over its arithmetic intensity, under the adapter's peak.

use std::fmt::Write;

use serde_json::Value as Json;

use super::table::shape;

const WIDTH: f64 = 1180.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 760.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 600.0;
/// Line spacing of the legend.
const LINE: f64 = 19.0;

/// Colours that colour-blind readers can tell apart (Okabe and Ito 2008).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#a07800", "#444444"];

struct Point {
    task: String,
    shape: String,
    /// Operations per byte; 0 for tasks without arithmetic.
    intensity: f64,
    /// GFLOP/s, or GB/s for tasks without arithmetic.
    rate: f64,
    share: Option<f64>,
}

/// Both axes are logarithmic.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

fn between(value: f64, (low, high): (f64, f64), from: f64, to: f64) -> f64 {
    from + (value.log10() - low.log10()) / (high.log10() - low.log10()) * (to - from)
}

impl Axes {
    /// An axis range with ends at 1, 2 or 5 times a power of ten, at least one decade.
    fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
        let positive = values.filter(|v| *v > 0.0 && v.is_finite());
        let least = positive.clone().fold(f64::INFINITY, f64::min);
        let most = positive.fold(0.0, f64::max);
        let (low, high) = (10f64.powf(least.log10().floor()), 10f64.powf(most.log10().floor()));
        let low = [5.0, 2.0, 1.0].into_iter().map(|step| step * low).find(|&edge| edge <= least * 0.9);
        let high = [1.0, 2.0, 5.0, 10.0, 20.0].into_iter().map(|step| step * high).find(|&edge| edge >= most * 1.1);
        let low = low.unwrap_or(least / 2.0);
        (low, high.unwrap_or(most * 2.0).max(low * 10.0))
    }

    fn x(&self, value: f64) -> f64 {
        between(value, self.x, LEFT, RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        between(value, self.y, BOTTOM, TOP)
    }

    /// Tasks without arithmetic are drawn at the left edge, as far below the roof as their rate is below the bandwidth.
    fn place(&self, point: &Point) -> (f64, f64) {
        match point.intensity > 0.0 {
            true => (self.x(point.intensity), self.y(point.rate)),
            false => (LEFT, self.y(point.rate * self.x.0)),
        }
    }
}

fn points(records: &[Json]) -> Vec<Point> {
    let point = |record: &Json| {
        let (flop, bytes) = (record["nominal_flop"].as_f64()?, record["nominal_bytes"].as_f64()?);
        let seconds = record["median_s"].as_f64()?;
        let point = Point {
            task: record["task"].as_str()?.to_owned(),
            shape: shape(record),
            intensity: flop / bytes,
            rate: if flop > 0.0 { flop } else { bytes } / seconds / 1e9,
            share: record["peak_share"].as_f64(),
        };
        (bytes > 0.0 && point.rate > 0.0).then_some(point)
    };
    records.iter().filter_map(point).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Draws the plot as SVG.
pub fn draw(ceilings: &Json, records: &[Json]) -> String {
    let points = points(records);
    let (flops, bandwidth) = (ceilings["gflops"].as_f64().unwrap_or(1.0), ceilings["gb_s"].as_f64().unwrap_or(1.0));
    let cores = ceilings["cores"]["gflops"].as_object().and_then(|rates| {
        rates.iter().filter_map(|(name, rate)| Some((name.clone(), rate.as_f64()?))).max_by(|a, b| a.1.total_cmp(&b.1))
    });
    let ridge = flops / bandwidth;
    let most = cores.as_ref().map_or(flops, |(_, rate)| rate.max(flops));
    let x = Axes::range(points.iter().map(|p| p.intensity).chain([ridge]));
    let rate = |p: &Point| if p.intensity > 0.0 { p.rate } else { p.rate * x.0 };
    let axes = Axes { x, y: Axes::range(points.iter().map(rate).chain([most * 1.05])) };
    let height = (TOP + 70.0 + LINE * points.len() as f64).max(BOTTOM + 70.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    // Writing to a string cannot fail.
    let title = format!(
        "{}, {}, driver {}",
        ceilings["adapter"].as_str().unwrap_or(""),
        ceilings["backend"].as_str().unwrap_or(""),
        ceilings["driver"].as_str().unwrap_or("")
    );
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"28\" font-size=\"17\" font-weight=\"600\">Kernels under the roofline</text>\n\
         <text x=\"{LEFT}\" y=\"48\" fill=\"#666\">{}; wgrad {}</text>",
        escaped(&title),
        env!("CARGO_PKG_VERSION")
    );
    grid(&mut svg, &axes);
    roof(&mut svg, &axes, flops, bandwidth, cores);
    marks(&mut svg, &axes, &points);
    svg.push_str("</svg>\n");
    svg
}

fn grid(svg: &mut String, axes: &Axes) {
    for (range, vertical) in [(axes.x, true), (axes.y, false)] {
        let (low, high) = (range.0.log10().floor() as i32, range.1.log10().ceil() as i32);
        for power in low..=high {
            for step in 1..10 {
                let value = f64::from(step) * 10f64.powi(power);
                if value > range.1 * 1.001 || value < range.0 * 0.999 {
                    continue;
                }
                let (colour, main) = if step == 1 { ("#d8d8d8", true) } else { ("#f1f1f1", false) };
                let (x1, y1, x2, y2) = match vertical {
                    true => (axes.x(value), TOP, axes.x(value), BOTTOM),
                    false => (LEFT, axes.y(value), RIGHT, axes.y(value)),
                };
                let _ = writeln!(svg, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"{colour}\"/>");
                if main {
                    let (x, y, anchor) = match vertical {
                        true => (x1, BOTTOM + 20.0, "middle"),
                        false => (LEFT - 8.0, y1 + 4.0, "end"),
                    };
                    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{value}</text>");
                }
            }
        }
    }
    let (x, y) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">operations per byte (nominal: each byte moved once)</text>\n\
         <text x=\"20\" y=\"{y}\" text-anchor=\"middle\" transform=\"rotate(-90 20 {y})\">GFLOP/s</text>",
        BOTTOM + 46.0
    );
}

fn roof(svg: &mut String, axes: &Axes, flops: f64, bandwidth: f64, cores: Option<(String, f64)>) {
    if let Some((name, rate)) = cores {
        let y = axes.y(rate);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#999\" stroke-dasharray=\"6 5\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" fill=\"#777\">CPU cores, {name}: {rate:.0} GFLOP/s</text>",
            LEFT + 8.0,
            y - 6.0
        );
    }
    // From the left or bottom edge to the ridge point, then to the right.
    let from = axes.x.0.max(axes.y.0 / bandwidth);
    let ridge = (flops / bandwidth).clamp(axes.x.0, axes.x.1);
    let (x1, y1) = (axes.x(from), axes.y(from * bandwidth));
    let (x2, y2) = (axes.x(ridge), axes.y((ridge * bandwidth).min(flops)));
    let _ = writeln!(
        svg,
        "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}H{RIGHT}\" fill=\"none\" stroke=\"#222\" stroke-width=\"2.5\"/>\n\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-weight=\"600\">{flops:.0} GFLOP/s</text>",
        RIGHT - 8.0,
        y2 + 18.0
    );
    let middle = ((x1 + x2) / 2.0, (y1 + y2) / 2.0);
    let turn = (y2 - y1).atan2(x2 - x1).to_degrees();
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-weight=\"600\" transform=\"rotate({turn:.1} {:.1} {:.1})\" \
         dy=\"-8\">{bandwidth:.1} GB/s</text>",
        middle.0, middle.1, middle.0, middle.1
    );
}

/// Moves overlapping marks apart.
fn apart(mut places: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    const NEAR: f64 = 18.0;
    for _ in 0..200 {
        for i in 0..places.len() {
            for j in 0..i {
                let (a, b) = (places[i], places[j]);
                // Identical places move apart in different directions.
                let own = i as f64 + 1.0;
                let (dx, dy) = if a == b { (own.cos(), own.sin()) } else { (a.0 - b.0, a.1 - b.1) };
                let far = dx.hypot(dy);
                if far < NEAR {
                    let push = (NEAR - far).max(0.5) / far / 2.0;
                    places[i] = (a.0 + dx * push, a.1 + dy * push);
                    places[j] = (b.0 - dx * push, b.1 - dy * push);
                }
            }
        }
    }
    places
}

/// Numbered dots and the legend.
fn marks(svg: &mut String, axes: &Axes, points: &[Point]) {
    let mut tasks: Vec<&str> = points.iter().map(|point| point.task.as_str()).collect();
    tasks.dedup();
    // Marks at the left edge move right first, then up or down.
    let aside = |(number, point): (usize, &Point)| {
        let (x, y) = axes.place(point);
        if point.intensity > 0.0 { (x, y) } else { (x + 20.0 * (number % 5) as f64, y) }
    };
    let badges = apart(points.iter().enumerate().map(aside).collect());
    let left = RIGHT + 28.0;
    let _ = writeln!(
        svg,
        "<g font-size=\"12\"><text x=\"{:.1}\" y=\"{}\" text-anchor=\"end\" fill=\"#666\">GFLOP/s</text>\
         <text x=\"{:.1}\" y=\"{}\" text-anchor=\"end\" fill=\"#666\">of peak</text>",
        WIDTH - 74.0,
        TOP,
        WIDTH - 16.0,
        TOP
    );
    for (number, point) in points.iter().enumerate() {
        let colour = COLOURS[tasks.iter().position(|task| *task == point.task).unwrap_or(0) % COLOURS.len()];
        let (x, y) = axes.place(point);
        let unit = if point.intensity > 0.0 { "GFLOP/s" } else { "GB/s" };
        let key = TOP + LINE * (number as f64 + 1.2);
        let share = point.share.map_or(String::new(), |share| format!("{:.0}%", share * 100.0));
        let name = escaped(&format!("{} {}", point.task, point.shape));
        let badge = badges[number];
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {y:.1}L{:.1} {:.1}\" stroke=\"{colour}\"/><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>",
            badge.0, badge.1
        );
        for (x, y) in [badge, (left, key - 4.0)] {
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"8.5\" fill=\"{colour}\" fill-opacity=\"0.9\" stroke=\"#fff\">\
                 <title>{name}: {:.3} {unit}</title></circle>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"10\" fill=\"#fff\">{}</text>",
                point.rate,
                y + 3.6,
                number + 1
            );
        }
        let digits = if point.rate < 10.0 { 2 } else { 1 };
        let unit = if point.intensity > 0.0 { "" } else { " GB/s" };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{key:.1}\">{name}</text>\
             <text x=\"{:.1}\" y=\"{key:.1}\" text-anchor=\"end\">{:.digits$}{unit}</text>\
             <text x=\"{:.1}\" y=\"{key:.1}\" text-anchor=\"end\">{share}</text>",
            left + 16.0,
            WIDTH - 74.0,
            point.rate,
            WIDTH - 16.0
        );
    }
    svg.push_str("</g>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kernel_is_drawn() {
        let ceilings = json!({"gflops": 100.0, "gb_s": 5.0, "adapter": "a <b>", "backend": "vulkan", "driver": "d",
            "cores": {"threads": 2, "gflops": {"avx2": 150.0}}});
        let records = [
            json!({"task": "matmul", "params": [8, 8, 8], "nominal_flop": 1e9, "nominal_bytes": 1e7, "median_s": 0.02,
                "peak_share": 0.5}),
            json!({"task": "relu", "params": [64], "nominal_flop": 1e6, "nominal_bytes": 8e6, "median_s": 0.001,
                "peak_share": null}),
            json!({"task": "sort", "params": [64], "nominal_flop": 0.0, "nominal_bytes": 8e6, "median_s": 0.004,
                "peak_share": 0.4}),
            json!({"task": "startup", "params": {"run": "first"}, "median_s": 1.0}),
        ];
        let svg = draw(&ceilings, &records);
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("matmul 8x8x8") && svg.contains("relu 64") && svg.contains("avx2: 150 GFLOP/s"), "{svg}");
        assert!(svg.contains("sort 64: 2.000 GB/s") && svg.contains("relu 64: 1.000 GFLOP/s"), "{svg}");
        assert!(svg.contains("a &lt;b&gt;") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(draw(&ceilings, &[]).contains("100 GFLOP/s"), "without kernels, too");
    }
}
