//! The study as a figure, in plain SVG text: a histogram of all deltas, then their ranges by kind and by layer, on one axis.
//!
//! The axis is logarithmic in |d| to both sides of a gap in the middle that stands for what is smaller than its ends, zero included:
//! on a linear one deltas that reach from 1e-6 to 0.02 are a needle. Counts are logarithmic, so that tails show.

use std::fmt::Write;

use deltaic_kernels::{ORDERED_BINS, ORDERED_BITS, from_ordered_bits};

use super::DeltaStudy;
use super::figures::Figures;
use super::regime::LIMITS;

/// Width of the figure, and the part of it that the axis takes.
const WIDTH: f64 = 980.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 890.0;
/// Half the width of the gap.
const GAP: f64 = 30.0;
/// Height of the histogram, and of a row of ranges.
const HISTOGRAM: f64 = 240.0;
const ROW: f64 = 15.0;
/// At most so many rows of ranges are drawn in one panel.
const MAX_ROWS: usize = 160;
/// |d| at the gap's sides: smaller deltas than this are in the gap.
const LEAST_DECADE: i32 = -6;

const INK: &str = "#222222";
const GRID: &str = "#d8d8d8";
const BAR: &str = "#3b6ea5";
const RANGE: &str = "#8fb3d9";
const MARK: &str = "#b5482f";

/// The axis of deltas.
struct Axis {
    /// The decade at its ends.
    greatest: i32,
}

impl Axis {
    fn of(study: &DeltaStudy) -> Self {
        let reach = study.whole.min.abs().max(study.whole.max.abs());
        // At least to 0.1, so that the paper's limits are always to be seen.
        let decade = if reach > 0.0 && reach.is_finite() { reach.log10().ceil() as i32 } else { -1 };
        Self { greatest: decade.clamp(-1, 38) }
    }

    /// The place of a delta.
    fn x(&self, delta: f64) -> f64 {
        let (middle, half) = ((LEFT + RIGHT) / 2.0, (RIGHT - LEFT) / 2.0 - GAP);
        let least = 10f64.powi(LEAST_DECADE);
        let magnitude = delta.abs();
        let away = if magnitude < least {
            GAP * magnitude / least
        } else {
            let decades = f64::from(self.greatest - LEAST_DECADE);
            GAP + half * ((magnitude.log10() - f64::from(LEAST_DECADE)) / decades).min(1.0)
        };
        if delta < 0.0 { middle - away } else { middle + away }
    }
}

/// Draws the study. `histogram` counts the deltas by the upper bits of their order.
pub(super) fn draw(study: &DeltaStudy, histogram: &[u64]) -> String {
    let axis = Axis::of(study);
    let kinds: Vec<(String, &Figures)> = study.kinds.iter().map(|(kind, figures)| (kind.clone(), figures)).collect();
    let layers: Vec<(String, &Figures)> = study.layers.iter().map(|(layer, figures)| (format!("layer {layer}"), figures)).collect();
    let mut body = String::new();
    let title = format!("Deltas of {} against {}", study.model.label_where(false, false), study.base.label_where(false, false));
    text(&mut body, 20.0, 28.0, 17, "start", INK, &shortened(&title, 100));
    let all = &study.whole;
    let within = LIMITS.iter().zip(all.within_shares()).map(|(limit, share)| format!("{limit}: {}", percent(share, 2)));
    let within = format!("{} elements; |d| within {}", all.elements, within.collect::<Vec<_>>().join(", "));
    let (unchanged, norm, cosine) = (percent(all.unchanged_share(), 1), number(all.relative_norm, 4), number(all.cosine, 5));
    let whole = format!("unchanged: {unchanged}; norm of d over norm of base: {norm}; cosine of base and model: {cosine}");
    text(&mut body, 20.0, 50.0, 12, "start", INK, &within);
    text(&mut body, 20.0, 67.0, 12, "start", INK, &whole);
    let mut y = draw_histogram(&mut body, &axis, 115.0, all, histogram);
    for (name, rows) in [("kind of tensor", &kinds), ("layer", &layers)] {
        if !rows.is_empty() {
            y = draw_ranges(&mut body, &axis, y, name, rows);
        }
    }
    let height = y + 10.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\">\n<title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n",
        escaped(&title)
    )
}

/// The share of the elements per factor of two of |d|, so that bins of any width compare. Returns where the next panel begins.
fn draw_histogram(out: &mut String, axis: &Axis, top: f64, all: &Figures, histogram: &[u64]) -> f64 {
    let (bottom, elements) = (top + HISTOGRAM, all.finite().max(1) as f64);
    let mut in_gap = 0;
    let mut bars: Vec<(f64, f64, f64)> = Vec::new();
    for (bin, &count) in histogram.iter().enumerate().take(ORDERED_BINS).filter(|(_, count)| **count > 0) {
        let edge = |bin: usize| f64::from(from_ordered_bits((bin as u32) << (ORDERED_BITS[1] + ORDERED_BITS[2])));
        // The ordered bits below the middle belong to negative numbers; of each bin both edges, the one nearer to zero first.
        let (near, far) = if bin < ORDERED_BINS / 2 { (edge(bin + 1), edge(bin)) } else { (edge(bin), edge(bin + 1)) };
        if near.abs() < 10f64.powi(LEAST_DECADE) || !far.is_finite() {
            in_gap += count;
        } else {
            bars.push((axis.x(near), axis.x(far), count as f64 / elements / (far / near).log2()));
        }
    }
    let densities = bars.iter().map(|bar| bar.2);
    let highest = densities.clone().fold(1e-3, f64::max).log10().ceil() as i32;
    let lowest = (densities.fold(1.0, f64::min).log10().floor() as i32).clamp(highest - 12, highest - 2);
    let y = |density: f64| bottom - HISTOGRAM * (density.log10() - f64::from(lowest)) / f64::from(highest - lowest);
    text(out, 20.0, top - 14.0, 13, "start", INK, "All deltas");
    for decade in lowest..=highest {
        let y = y(10f64.powi(decade));
        line(out, (LEFT, y), (RIGHT, y), GRID, 1.0, "");
        text(out, LEFT - 8.0, y + 4.0, 11, "end", INK, &power(decade));
    }
    let _ = writeln!(
        out,
        "<text transform=\"translate(150,{:.0}) rotate(-90)\" font-size=\"12\" text-anchor=\"middle\" fill=\"{INK}\">share of elements per factor of 2 in |d|</text>",
        (top + bottom) / 2.0
    );
    marks(out, axis, top, bottom, true);
    let mut path = String::new();
    for (near, far, density) in bars {
        let (left, right) = (near.min(far), near.max(far));
        let _ = write!(path, "M{left:.1} {bottom:.1}V{:.1}H{right:.1}V{bottom:.1}Z", y(density).min(bottom));
    }
    let _ = writeln!(out, "<path d=\"{path}\" fill=\"{BAR}\"/>");
    let middle = (LEFT + RIGHT) / 2.0;
    let smaller = format!("|d| < 1e{LEAST_DECADE}: {:.1}%", 100.0 * in_gap as f64 / elements);
    // On white, for it may stand before bars.
    let _ = writeln!(out, "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"130\" height=\"16\" fill=\"#ffffff\"/>", middle - 65.0, top + 2.0);
    text(out, middle, top + 14.0, 11, "middle", INK, &smaller);
    decades(out, axis, bottom);
    bottom + 80.0
}

/// A row for each set: thin from 0.1% to 99.9%, thick from 1% to 99%. Returns where the next panel begins.
fn draw_ranges(out: &mut String, axis: &Axis, top: f64, what: &str, rows: &[(String, &Figures)]) -> f64 {
    let shown = rows.len().min(MAX_ROWS);
    let bottom = top + 6.0 + ROW * shown as f64;
    let cut = if shown < rows.len() { format!(" (the first {shown} of {})", rows.len()) } else { String::new() };
    let heading = format!(
        "By {what}{cut}: quantiles .001 to .999 (thin), .01 to .99 (thick), median (dot), least and greatest (ticks); at the right, share within 0.002"
    );
    text(out, 20.0, top - 14.0, 13, "start", INK, &heading);
    marks(out, axis, top, bottom, false);
    for (i, (name, figures)) in rows.iter().take(shown).enumerate() {
        let y = top + 6.0 + ROW * (i as f64 + 0.5);
        text(out, LEFT - 8.0, y + 4.0, 11, "end", INK, &shortened(name, 34));
        if figures.finite() == 0 {
            continue;
        }
        let [q001, q01, q50, q99, q999] = figures.quantiles.map(|quantile| axis.x(quantile));
        line(out, (q001, y), (q999, y), BAR, 1.5, "");
        line(out, (q01, y), (q99, y), RANGE, 7.0, "");
        for end in [figures.min, figures.max].map(|end| axis.x(end)) {
            line(out, (end, y - 4.0), (end, y + 4.0), BAR, 1.0, "");
        }
        let _ = writeln!(out, "<circle cx=\"{q50:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"{INK}\"/>");
        text(out, RIGHT + 8.0, y + 4.0, 11, "start", INK, &percent(figures.within_shares()[1], 2));
    }
    decades(out, axis, bottom);
    bottom + 80.0
}

/// The axis below a panel, with its decades.
fn decades(out: &mut String, axis: &Axis, y: f64) {
    line(out, (LEFT, y), (RIGHT, y), INK, 1.0, "");
    // Labels keep a distance.
    let step = ((axis.greatest - LEAST_DECADE) as usize).div_ceil(6);
    for decade in (LEAST_DECADE..=axis.greatest).step_by(step) {
        for sign in [-1.0, 1.0] {
            let x = axis.x(sign * 10f64.powi(decade));
            line(out, (x, y), (x, y + 5.0), INK, 1.0, "");
            let minus = if sign < 0.0 { "\u{2212}" } else { "" };
            text(out, x, y + 18.0, 11, "middle", INK, &format!("{minus}{}", power(decade)));
        }
    }
    let label = "d = model \u{2212} base, in the weights' own units; logarithmic in |d|, the middle stands for smaller ones and zero";
    text(out, (LEFT + RIGHT) / 2.0, y + 35.0, 12, "middle", INK, label);
}

/// The paper's limits.
fn marks(out: &mut String, axis: &Axis, top: f64, bottom: f64, labelled: bool) {
    for (i, limit) in LIMITS.iter().enumerate() {
        for sign in [-1.0, 1.0] {
            let x = axis.x(sign * f64::from(*limit));
            line(out, (x, top), (x, bottom), MARK, 1.0, " stroke-dasharray=\"4 3\"");
            if labelled {
                // Neighbours stand at two heights.
                let y = top - if i % 2 == 0 { 4.0 } else { 16.0 };
                text(out, x, y, 10, "middle", MARK, &format!("{}{limit}", if sign < 0.0 { "\u{2212}" } else { "" }));
            }
        }
    }
}

/// A number with so many decimals; a dash for what is unknown.
fn number(value: f64, decimals: usize) -> String {
    if value.is_nan() { "\u{2013}".to_owned() } else { format!("{value:.decimals$}") }
}

/// A share in percent; a dash for that of nothing.
fn percent(share: f64, decimals: usize) -> String {
    let sign = if share.is_nan() { "" } else { "%" };
    format!("{}{sign}", number(100.0 * share, decimals))
}

/// `1e-6`, `0.01`, `1`.
fn power(decade: i32) -> String {
    if (-3..=3).contains(&decade) { format!("{}", 10f64.powi(decade)) } else { format!("1e{decade}") }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), color: &str, width: f64, more: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" stroke-width=\"{width}\"{more}/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, size: u32, anchor: &str, color: &str, content: &str) {
    let content = escaped(content);
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"{color}\">{content}</text>");
}

/// The end of a name says more than its beginning.
fn shortened(name: &str, most: usize) -> String {
    let count = name.chars().count();
    if count <= most { name.to_owned() } else { format!("\u{2026}{}", name.chars().skip(count - most + 1).collect::<String>()) }
}

/// Text of foreign files as XML and HTML allow it.
pub fn escaped(content: &str) -> String {
    let mut out = String::with_capacity(content.len());
    for c in content.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_is_symmetric_and_grows_with_the_delta() {
        let axis = Axis { greatest: -1 };
        let deltas = [-1.0, -0.1, -0.02, -0.002, -1e-5, -1e-6, -1e-7, 0.0, 1e-7, 1e-6, 1e-5, 0.002, 0.02, 0.1, 1.0];
        let places = deltas.map(|delta| axis.x(delta));
        assert!(places.is_sorted() && places[0] == LEFT && places[14] == RIGHT, "{places:?}");
        deltas.iter().for_each(|delta| assert!((axis.x(*delta) + axis.x(-delta) - LEFT - RIGHT).abs() < 1e-9));
    }

    #[test]
    fn foreign_names_are_escaped_and_cut() {
        assert_eq!(escaped("<script>&\"\u{1}"), "&lt;script&gt;&amp;&quot;\u{fffd}");
        assert_eq!(shortened("a.very.long.name", 5), "\u{2026}name");
    }
}
