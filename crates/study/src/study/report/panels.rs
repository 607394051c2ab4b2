//! Panels of something against drop rate, a line for each operation.

use crate::plot::{Axis, COLORS, Drawing, GRID, INK};
use crate::study::schema::Operation;

/// Sizes of a panel, in pixels.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
/// Where the data is in it.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 405.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 245.0;
/// Room above the panels, for the legend.
const HEAD: f64 = 34.0;

/// A panel.
pub struct Panel {
    /// What stands above it.
    pub title: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// The line of an operation.
pub struct Line {
    /// Which one.
    pub operation: Operation,
    /// By ascending rate.
    pub marks: Vec<Mark>,
}

/// A point of a line.
pub struct Mark {
    /// The drop rate.
    pub rate: f64,
    /// Where the line goes through.
    pub value: f64,
    /// The band around it.
    pub band: [f64; 2],
    /// Half the length of the bar through it.
    pub bar: Option<f64>,
}

/// Draws panels, two in a row.
pub fn draw(title: &str, panels: &[Panel]) -> String {
    let columns = panels.len().min(2);
    let rows = panels.len().div_ceil(columns.max(1));
    let mut drawing = Drawing::new(WIDTH * columns as f64, HEAD + HEIGHT * rows as f64, title);
    let mut operations: Vec<Operation> = panels.iter().flat_map(|panel| &panel.lines).map(|line| line.operation).collect();
    operations.sort();
    operations.dedup();
    legend(&mut drawing, &operations);
    for (number, panel) in panels.iter().enumerate() {
        let origin = (WIDTH * (number % columns) as f64, HEAD + HEIGHT * (number / columns) as f64);
        draw_panel(&mut drawing, origin, panel);
    }
    drawing.finish()
}

fn color(operation: Operation) -> &'static str {
    COLORS[operation as usize % COLORS.len()]
}

/// Lines are told apart without colours, too.
fn dashes(operation: Operation) -> &'static str {
    ["", "7 4", "2 3", "9 3 2 3"][operation as usize % 4]
}

fn legend(drawing: &mut Drawing, operations: &[Operation]) {
    let mut x = LEFT;
    for &operation in operations {
        drawing.path(&[(x, 16.0), (x + 34.0, 16.0)], color(operation), dashes(operation));
        drawing.text((x + 40.0, 20.0), 12, "start", operation.title());
        x += 60.0 + 7.0 * operation.title().len() as f64;
    }
}

fn draw_panel(drawing: &mut Drawing, origin: (f64, f64), panel: &Panel) {
    let (left, right, top, bottom) = (origin.0 + LEFT, origin.0 + RIGHT, origin.1 + TOP, origin.1 + BOTTOM);
    drawing.text((left, top - 12.0), 13, "start", &panel.title);
    // Rates are steps, not lengths: most of what is to be seen lies between 0.9 and 0.99.
    let marks = || panel.lines.iter().flat_map(|line| &line.marks);
    let mut rates: Vec<f64> = marks().map(|mark| mark.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let x = |rate: f64| {
        let place = rates.iter().position(|known| *known == rate).unwrap_or(0);
        left + 14.0 + (right - left - 28.0) * place as f64 / (rates.len().max(2) - 1) as f64
    };
    let axis = Axis::around(marks().flat_map(|mark| [mark.value, mark.band[0], mark.band[1]]), false, top, bottom);
    for (value, label) in axis.ticks() {
        drawing.line((left, axis.y(value)), (right, axis.y(value)), GRID, 1.0);
        drawing.text((left - 6.0, axis.y(value) + 4.0), 11, "end", &label);
    }
    drawing.line((left, bottom), (right, bottom), INK, 1.0);
    for &rate in &rates {
        drawing.text((x(rate), bottom + 16.0), 11, "middle", &rate.to_string());
    }
    drawing.text(((left + right) / 2.0, bottom + 34.0), 11, "middle", "drop rate");
    panel.lines.iter().for_each(|line| draw_line(drawing, &axis, &x, line));
}

fn draw_line(drawing: &mut Drawing, axis: &Axis, x: &dyn Fn(f64) -> f64, line: &Line) {
    let marks: Vec<&Mark> = line.marks.iter().filter(|mark| mark.value.is_finite()).collect();
    let edge = |end: usize| marks.iter().map(move |mark| (x(mark.rate), axis.y(mark.band[end])));
    let around: Vec<(f64, f64)> = edge(0).chain(edge(1).collect::<Vec<_>>().into_iter().rev()).collect();
    let color = color(line.operation);
    drawing.band(&around, color);
    let through: Vec<(f64, f64)> = marks.iter().map(|mark| (x(mark.rate), axis.y(mark.value))).collect();
    drawing.path(&through, color, dashes(line.operation));
    for (mark, at) in marks.iter().zip(&through) {
        if let Some(half) = mark.bar {
            let end = |sign: f64| (at.0, axis.y(mark.value + sign * half).clamp(axis.top, axis.bottom));
            drawing.line(end(-1.0), end(1.0), color, 1.2);
        }
        drawing.dot(*at, color);
    }
}
