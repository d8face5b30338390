//! Line charts as SVG text. Colours and fonts are the page's style sheet's: classes `c0`…`c7`, `raw`, `line`, `dot`.

use std::fmt::Write as _;

/// Points that one curve is drawn with, at most.
const MOST_POINTS: usize = 400;
/// Colours before the dash pattern changes.
pub const COLOURS: usize = 8;
const DASHES: [&str; 3] = ["", " stroke-dasharray=\"7 4\"", " stroke-dasharray=\"2 4\""];

/// Width and height of the drawing, and the margins around its plot.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 46.0;

/// A point of a curve.
pub type Point = (f64, f64);

/// One curve of a chart.
#[derive(Debug, Default)]
pub struct Series {
    pub name: String,
    /// Index of its colour; from [`COLOURS`] on they come again, dashed.
    pub style: usize,
    /// Joined by a line.
    pub line: Vec<Point>,
    /// Drawn faintly behind it.
    pub raw: Vec<Point>,
    /// Whether the line's points are marked, and tell their values.
    pub dots: bool,
}

/// A chart. Texts are escaped here.
#[derive(Debug, Default)]
pub struct Chart {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub series: Vec<Series>,
    /// Whether the vertical axis begins at 0.
    pub from_zero: bool,
    /// Whether the horizontal axis is logarithmic, with a tick at each point of the lines; nothing below 0 is drawn then.
    pub log_x: bool,
}

/// Text as it stands between tags and in attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// The exponential moving mean of the values, over about `n/10` of the points (1 to 200), without the bias towards
/// a start at 0.
pub fn smooth(points: &[Point]) -> Vec<Point> {
    let span = (points.len() as f64 / 10.0).clamp(1.0, 200.0);
    let weight = 2.0 / (span + 1.0);
    let (mut mean, mut total) = (0.0, 0.0);
    let step = |&(x, y): &Point| {
        mean += weight * (y - mean);
        total += weight * (1.0 - total);
        (x, mean / total)
    };
    points.iter().map(step).collect()
}

impl Chart {
    /// A `figure` with title, legend and drawing; None if there is nothing to draw.
    pub fn html(&self) -> Option<String> {
        let plot = Plot::of(self)?;
        let mut html = format!("<figure>\n<figcaption>{}</figcaption>\n", escape(&self.title));
        if self.series.len() > 1 {
            html.push_str("<div class=\"legend\">");
            for series in &self.series {
                let (class, dash) = style(series.style);
                let _ = write!(
                    html,
                    "<span><svg width=\"26\" height=\"10\" class=\"{class}\" aria-hidden=\"true\"><path class=\"line\" \
                     d=\"M1 5H25\"{dash}/></svg>{}</span> ",
                    escape(&series.name)
                );
            }
            html.push_str("</div>\n");
        }
        plot.draw(self, &mut html);
        html.push_str("</figure>\n");
        Some(html)
    }
}

fn style(index: usize) -> (String, &'static str) {
    (format!("c{}", index % COLOURS), DASHES[index / COLOURS % DASHES.len()])
}

/// Where the values of a chart lie on the drawing.
struct Plot {
    /// Of logarithms where `marks` are.
    x: Axis,
    y: Axis,
    /// Ticks of a logarithmic horizontal axis.
    marks: Option<Vec<f64>>,
}

struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Plot {
    fn of(chart: &Chart) -> Option<Plot> {
        let finite = |points: &[Point]| -> Vec<Point> {
            points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
        };
        let lines: Vec<Point> = chart.series.iter().flat_map(|series| finite(&series.line)).collect();
        let raw: Vec<Point> = chart.series.iter().flat_map(|series| finite(&series.raw)).collect();
        if chart.log_x {
            return Plot::logarithmic(&lines, &raw);
        }
        let (x_low, x_high) = extent(lines.iter().chain(&raw).map(|point| point.0))?;
        let (mut low, mut high) = extent(lines.iter().map(|point| point.1))?;
        // A few outliers must not flatten the rest: of the faint points the middle 98 % decide.
        let mut values: Vec<f64> = raw.iter().map(|point| point.1).collect();
        values.sort_by(f64::total_cmp);
        if let (Some(first), Some(last)) = (values.get(values.len() / 100), values.iter().rev().nth(values.len() / 100))
        {
            (low, high) = (low.min(*first), high.max(*last));
        }
        if chart.from_zero {
            low = low.min(0.0);
        }
        let dots = chart.series.iter().any(|series| series.dots);
        // Dots at the very edge would be cut in half.
        let margin = if dots { ((x_high - x_low) * 0.03).max(0.2) } else { 0.0 };
        let x = Axis { low: x_low - margin, high: x_high + margin, step: nice((x_high - x_low) / 6.0).max(1.0) };
        let x = x.or_wider(1.0);
        // Counts beyond 2^53 are no longer told apart.
        (x.low < x.high).then_some(Plot { x, y: Axis::around(low, high)?, marks: None })
    }

    fn logarithmic(lines: &[Point], raw: &[Point]) -> Option<Plot> {
        let all = lines.iter().chain(raw).filter(|point| point.0 > 0.0);
        let (low, high) = extent(all.clone().map(|point| point.0.log10()))?;
        let (least, most) = extent(all.map(|point| point.1))?;
        let margin = ((high - low) * 0.03).max(0.1);
        let x = Axis { low: low - margin, high: high + margin, step: 1.0 };
        let mut marks: Vec<f64> = lines.iter().map(|point| point.0).filter(|x| *x > 0.0).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        Some(Plot { x, y: Axis::around(least, most)?, marks: Some(marks) })
    }

    /// A value on the horizontal axis.
    fn along(&self, x: f64) -> f64 {
        if self.marks.is_some() { x.log10() } else { x }
    }

    fn place(&self, (x, y): Point) -> Point {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let x = self.along(x);
        (LEFT + self.x.share(x) * (right - LEFT), bottom - self.y.share(y) * (bottom - TOP))
    }

    fn draw(&self, chart: &Chart, html: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let _ = writeln!(
            html,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&chart.title)
        );
        for tick in self.y.ticks() {
            let y = bottom - self.y.share(tick) * (bottom - TOP);
            let (label, text) = (self.y.label(tick), LEFT - 8.0);
            let _ = writeln!(html, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>");
            let _ = writeln!(html, "<text x=\"{text}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", y + 4.5);
        }
        let ticks = match &self.marks {
            Some(marks) => marks.iter().map(|mark| (*mark, mark.to_string())).collect(),
            None => self.x.ticks().into_iter().map(|tick| (tick, self.x.label(tick))).collect::<Vec<_>>(),
        };
        for (tick, label) in ticks {
            let x = self.place((tick, self.y.low)).0;
            let _ = writeln!(html, "<path class=\"axis\" d=\"M{x:.1} {bottom}v5\"/>");
            let y = bottom + 19.0;
            let _ = writeln!(html, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>");
        }
        let _ = writeln!(html, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>");
        let (x, y) = ((LEFT + right) / 2.0, HEIGHT - 7.0);
        let _ = writeln!(
            html,
            "<text class=\"name\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{}</text>",
            escape(&chart.x_label)
        );
        let _ = writeln!(html, "<text class=\"name\" x=\"4\" y=\"14\">{}</text>", escape(&chart.y_label));
        for series in &chart.series {
            self.draw_raw(series, html);
        }
        for series in &chart.series {
            self.draw_line(series, html);
        }
        html.push_str("</svg>\n");
    }

    fn draw_raw(&self, series: &Series, html: &mut String) {
        let mut path = String::new();
        for point in thinned(&series.raw) {
            if self.holds(point) {
                let (x, y) = self.place(point);
                let _ = write!(path, "M{x:.1} {y:.1}h0");
            }
        }
        if !path.is_empty() {
            let _ = writeln!(html, "<path class=\"raw {}\" d=\"{path}\"/>", style(series.style).0);
        }
    }

    fn draw_line(&self, series: &Series, html: &mut String) {
        let (class, dash) = style(series.style);
        let points: Vec<Point> = thinned(&series.line).into_iter().filter(|&point| self.holds(point)).collect();
        let mut path = String::new();
        for &point in &points {
            let (x, y) = self.place(point);
            let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' });
        }
        if points.len() > 1 {
            let _ = writeln!(html, "<path class=\"line {class}\" d=\"{path}\"{dash}/>");
        }
        // A single point has no line to be seen by.
        if series.dots || points.len() == 1 {
            for &point in &points {
                let (x, y) = self.place(point);
                let place = match self.marks {
                    Some(_) => format!("at {}", point.0),
                    None => format!("after {}", rounded(point.0)),
                };
                let told = format!("{}: {} {place}", series.name, rounded(point.1));
                let _ = writeln!(
                    html,
                    "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{}</title></circle>",
                    escape(&told)
                );
            }
        }
    }

    fn holds(&self, (x, y): Point) -> bool {
        // NaN is in no range.
        (self.x.low..=self.x.high).contains(&self.along(x)) && (self.y.low..=self.y.high).contains(&y)
    }
}

impl Axis {
    /// An axis that holds `low` to `high` and begins and ends at ticks. None if they are too far apart to be drawn.
    fn around(low: f64, high: f64) -> Option<Axis> {
        let (low, high) = match low == high {
            true if low == 0.0 => (0.0, 1.0),
            true => (low - low.abs() * 0.1, high + high.abs() * 0.1),
            false => (low, high),
        };
        let step = nice((high - low) / 5.0);
        let axis = Axis { low: (low / step).floor() * step, high: (high / step).ceil() * step, step };
        (axis.step.is_normal() && axis.low.is_finite() && axis.high.is_finite() && axis.low < axis.high).then_some(axis)
    }

    /// At least `least` wide.
    fn or_wider(self, least: f64) -> Axis {
        let lacking = (least - (self.high - self.low)).max(0.0);
        Axis { low: self.low - lacking / 2.0, high: self.high + lacking / 2.0, step: self.step }
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> Vec<f64> {
        let first = (self.low / self.step - 1e-9).ceil();
        let ticks = (0..20).map(|index| (first + f64::from(index)) * self.step);
        ticks.take_while(|tick| *tick <= self.high + self.step * 1e-9).collect()
    }

    fn label(&self, value: f64) -> String {
        let largest = self.low.abs().max(self.high.abs());
        if value.abs() < self.step * 1e-6 {
            "0".into()
        } else if !(1e-3..1e9).contains(&largest) {
            format!("{value:.1e}").replace(".0e", "e")
        } else if largest >= 1e6 {
            format!("{}M", decimals(value / 1e6, self.step / 1e6))
        } else if largest >= 1e4 {
            format!("{}k", decimals(value / 1e3, self.step / 1e3))
        } else {
            decimals(value, self.step)
        }
    }
}

/// As many decimals as tell multiples of `step` apart.
fn decimals(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.decimals$}")
}

/// Four significant digits or so.
fn rounded(value: f64) -> String {
    if value == value.round() && value.abs() < 1e9 {
        format!("{value:.0}")
    } else if (1e-3..1e9).contains(&value.abs()) {
        decimals(value, value.abs() / 1e3)
    } else {
        format!("{value:.3e}")
    }
}

/// The least of 1, 2, 5 times a power of ten that is not below `width`.
fn nice(width: f64) -> f64 {
    if width <= 0.0 {
        return 0.0;
    }
    let power = 10f64.powf(width.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    factors.into_iter().map(|factor| factor * power).find(|step| *step >= width * (1.0 - 1e-9)).unwrap_or(width)
}

fn extent(values: impl Iterator<Item = f64>) -> Option<Point> {
    values.fold(None, |extent, value| match extent {
        Some((low, high)) => Some((value.min(low), value.max(high))),
        None => Some((value, value)),
    })
}

/// Every so many-th of the points, and the last one.
fn thinned(points: &[Point]) -> Vec<Point> {
    let stride: usize = points.len().div_ceil(MOST_POINTS).max(1);
    let mut thinned: Vec<Point> = points.iter().copied().step_by(stride).collect();
    if stride > 1 && !(points.len() - 1).is_multiple_of(stride) {
        thinned.extend(points.last());
    }
    thinned
}
