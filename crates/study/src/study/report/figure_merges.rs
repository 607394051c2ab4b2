//! Scores of merges: a panel for each set of models, bars by method without DARE and with it at each rate.

use crate::plot::{Axis, COLORS, Drawing, GRID, INK};
use crate::study::findings::{Finished, MergeFinding, Spread};

const BAR: f64 = 15.0;
const GAP: f64 = 26.0;
/// The room that the names below a group of bars take.
const NAMES: f64 = 112.0;
const LEFT: f64 = 62.0;
const HEIGHT: f64 = 250.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 200.0;
const HEAD: f64 = 34.0;

/// The figure by its name, if there is something to show.
pub fn draw(finished: &Finished<'_>, findings: &[MergeFinding]) -> Option<(String, String)> {
    if findings.is_empty() {
        return None;
    }
    let sets: Vec<&[MergeFinding]> = findings.chunk_by(|a, b| a.models == b.models).collect();
    let mut rates: Vec<f64> = findings.iter().flat_map(|finding| &finding.with_dare).map(|with_dare| with_dare.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let width = |set: &[MergeFinding]| set.iter().map(group_width).sum::<f64>();
    let widest = sets.iter().map(|set| width(set)).fold(0.0, f64::max);
    let title = format!("{}: scores of merges", finished.open.study.study);
    let mut drawing = Drawing::new((LEFT + widest + 40.0).max(560.0), HEAD + HEIGHT * sets.len() as f64, &title);
    legend(&mut drawing, &rates);
    let values = findings.iter().flat_map(|finding| {
        let with_dare = finding.with_dare.iter().map(|with_dare| &with_dare.score);
        std::iter::once(&finding.score).chain(with_dare).map(|score| score.mean + score.stderr.unwrap_or(0.0))
    });
    // One scale for all sets: they are compared.
    let scale = Axis::around(values.chain([1.0]), true, 0.0, 1.0);
    for (number, set) in sets.iter().enumerate() {
        panel(&mut drawing, finished, HEAD + HEIGHT * number as f64, set, &rates, &scale, LEFT + width(set));
    }
    Some(("merges".to_owned(), drawing.finish()))
}

/// How wide the bars of a method are, with the room around them.
fn group_width(finding: &MergeFinding) -> f64 {
    (GAP + BAR * (1 + finding.with_dare.len()) as f64).max(NAMES)
}

/// The more is dropped, the fainter.
fn opacity(rates: &[f64], rate: f64) -> f64 {
    let place = rates.iter().position(|known| *known == rate).unwrap_or(0);
    1.0 - 0.7 * place as f64 / rates.len().max(1) as f64
}

fn legend(drawing: &mut Drawing, rates: &[f64]) {
    drawing.bar((LEFT, 8.0), (LEFT + 14.0, 22.0), COLORS[6], 0.75);
    drawing.text((LEFT + 20.0, 19.0), 12, "start", "without DARE");
    let mut x = LEFT + 120.0;
    for &rate in rates {
        drawing.bar((x, 8.0), (x + 14.0, 22.0), COLORS[0], opacity(rates, rate));
        drawing.text((x + 20.0, 19.0), 12, "start", &format!("DARE {rate}"));
        x += 90.0;
    }
}

fn panel(drawing: &mut Drawing, finished: &Finished<'_>, top: f64, set: &[MergeFinding], rates: &[f64], scale: &Axis, right: f64) {
    let study = finished.open.study;
    let axis = Axis { top: top + TOP, bottom: top + BOTTOM, ..*scale };
    let names: Vec<&str> = set[0].models.iter().map(|&model| study.models[model].name.as_str()).collect();
    drawing.text((LEFT, top + 20.0), 13, "start", &names.join(" + "));
    for (value, label) in axis.ticks() {
        drawing.line((LEFT, axis.y(value)), (right, axis.y(value)), GRID, 1.0);
        drawing.text((LEFT - 6.0, axis.y(value) + 4.0), 11, "end", &label);
    }
    drawing.upright((16.0, top + (TOP + BOTTOM) / 2.0), 11, "score (1: the fine-tunes)");
    let mut start = LEFT;
    for (number, finding) in set.iter().enumerate() {
        let middle = start + group_width(finding) / 2.0;
        let mut x = middle - BAR * (1 + finding.with_dare.len()) as f64 / 2.0;
        start += group_width(finding);
        bar(drawing, &axis, x, &finding.score, COLORS[6], 0.75);
        for with_dare in &finding.with_dare {
            x += BAR;
            bar(drawing, &axis, x, &with_dare.score, COLORS[0], opacity(rates, with_dare.rate));
        }
        let (method, parameters) = finding
            .point
            .label()
            .split_once(", ")
            .map_or_else(|| (finding.point.label(), String::new()), |(method, parameters)| (method.to_owned(), parameters.to_owned()));
        // Neighbours' parameters stand at two heights.
        drawing.text((middle, axis.bottom + 14.0), 11, "middle", &method);
        drawing.text((middle, axis.bottom + 27.0 + 11.0 * (number % 2) as f64), 9, "middle", &parameters);
    }
    drawing.line((LEFT, axis.y(0.0)), (right, axis.y(0.0)), INK, 1.0);
    drawing.line((LEFT, axis.y(1.0)), (right, axis.y(1.0)), INK, 0.7);
}

/// A bar with one standard error over items to each side.
fn bar(drawing: &mut Drawing, axis: &Axis, x: f64, score: &Spread, color: &str, opacity: f64) {
    if !score.mean.is_finite() {
        return;
    }
    drawing.bar((x, axis.y(0.0)), (x + BAR - 2.0, axis.y(score.mean)), color, opacity);
    if let Some(error) = score.stderr {
        let middle = x + BAR / 2.0 - 1.0;
        drawing.line((middle, axis.y(score.mean - error)), (middle, axis.y(score.mean + error)), INK, 1.0);
    }
}
