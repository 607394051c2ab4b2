//! The parts of figures: SVG with a white background, nothing loaded from elsewhere, no scripts.

use std::fmt::Write;

use deltaic_merge::delta::escaped_for_xml as escaped;

/// Colours that those who cannot tell all colours apart can tell apart (Okabe and Ito).
pub const COLORS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
/// Of text and axes.
pub const INK: &str = "#222222";
/// Of lines behind the data.
pub const GRID: &str = "#dddddd";

/// A drawing, as it grows.
pub struct Drawing {
    body: String,
    width: f64,
    height: f64,
    title: String,
}

impl Drawing {
    /// An empty drawing; `title` says what it shows.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        Self { body: String::new(), width, height, title: title.to_owned() }
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.body,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" stroke-width=\"{width}\"/>"
        );
    }

    /// A line through points; those that are not numbers are left out.
    pub fn path(&mut self, points: &[(f64, f64)], color: &str, dashes: &str) {
        let points: Vec<String> =
            points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>",
            points.join(" ")
        );
    }

    /// A filled polygon that what is behind shines through.
    pub fn band(&mut self, points: &[(f64, f64)], color: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(self.body, "<polygon points=\"{}\" fill=\"{color}\" fill-opacity=\"0.15\"/>", points.join(" "));
    }

    /// A dot.
    pub fn dot(&mut self, at: (f64, f64), color: &str) {
        let (x, y) = at;
        let _ = writeln!(self.body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>");
    }

    /// A bar, from one corner to the opposite one.
    pub fn bar(&mut self, from: (f64, f64), to: (f64, f64), color: &str, opacity: f64) {
        let (x, y, width, height) = (from.0.min(to.0), from.1.min(to.1), (to.0 - from.0).abs(), (to.1 - from.1).abs());
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\" fill-opacity=\"{opacity:.2}\"/>"
        );
    }

    /// A line of text; `anchor` is `start`, `middle` or `end`.
    pub fn text(&mut self, at: (f64, f64), size: u32, anchor: &str, content: &str) {
        let (x, y) = at;
        let content = escaped(content);
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"{INK}\">{content}</text>"
        );
    }

    /// Text that is read from below.
    pub fn upright(&mut self, at: (f64, f64), size: u32, content: &str) {
        let (x, y) = at;
        let content = escaped(content);
        let _ = writeln!(
            self.body,
            "<text transform=\"translate({x:.1},{y:.1}) rotate(-90)\" font-size=\"{size}\" text-anchor=\"middle\" fill=\"{INK}\">{content}</text>"
        );
    }

    /// The whole document.
    pub fn finish(self) -> String {
        let Self { body, width, height, title } = self;
        let title = escaped(&title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
             font-family=\"sans-serif\" role=\"img\">\n<title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

/// The vertical axis of a panel.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// The values at its ends.
    pub from: f64,
    /// The value at the top.
    pub to: f64,
    /// Where the top is.
    pub top: f64,
    /// Where the bottom is.
    pub bottom: f64,
}

impl Axis {
    /// An axis on which all values have room; with `zero` it begins there.
    pub fn around(values: impl Iterator<Item = f64>, zero: bool, top: f64, bottom: f64) -> Self {
        let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()).chain(zero.then_some(0.0)) {
            (least, greatest) = (least.min(value), greatest.max(value));
        }
        if least > greatest {
            (least, greatest) = (0.0, 1.0);
        }
        let step = step((greatest - least).max(1e-3));
        let from = (least / step).floor() * step;
        let to = ((greatest / step).ceil() * step).max(from + step);
        Self { from, to, top, bottom }
    }

    /// Where a value is.
    pub fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * (value - self.from) / (self.to - self.from)
    }

    /// Round values along the axis, with their labels.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let step = step(self.to - self.from);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let count = ((self.to - self.from) / step).round() as usize;
        (0..=count).map(|tick| self.from + step * tick as f64).map(|value| (value, format!("{value:.decimals$}"))).collect()
    }
}

/// A round step that parts a range into 3 to 8.
fn step(range: f64) -> f64 {
    let power = 10f64.powf((range / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| range / step <= 8.0).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_room_for_all_values_at_round_ticks() {
        let axis = Axis::around([0.312, 0.871, f64::NAN].into_iter(), false, 10.0, 110.0);
        let ticks: Vec<String> = axis.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(ticks, ["0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]);
        assert!((axis.y(0.3) - 110.0).abs() < 1e-9 && (axis.y(0.9) - 10.0).abs() < 1e-9);
        assert_eq!(Axis::around([0.4].into_iter(), true, 0.0, 1.0).from, 0.0);
        let same = Axis::around([0.5, 0.5].into_iter(), false, 0.0, 1.0);
        assert!(same.from <= 0.5 && same.to > same.from);
        assert!(Axis::around(std::iter::empty(), false, 0.0, 1.0).to > 0.0);
    }
}
