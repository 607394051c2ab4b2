//! Score against drop rate, a panel for each model and task.

use std::collections::BTreeMap;

use super::panels::{Line, Mark, Panel, draw as draw_panels};
use crate::study::findings::{Finished, SinglePoint};
use crate::study::schema::Operation;

/// The figure by its name, if there is something to show.
pub fn draw(finished: &Finished<'_>, points: &[SinglePoint]) -> Option<(String, String)> {
    let mut by_panel: BTreeMap<(usize, usize), Vec<&SinglePoint>> = BTreeMap::new();
    for point in points {
        by_panel.entry((point.model, point.task)).or_default().push(point);
    }
    by_panel.retain(|_, points| points.iter().any(|point| point.operation.is_some()));
    let panels: Vec<Panel> = by_panel.into_iter().map(|(of, points)| panel(finished, of, &points)).collect();
    let title = format!("{}: score against drop rate", finished.open.study.study);
    (!panels.is_empty()).then(|| ("rates".to_owned(), draw_panels(&title, &panels)))
}

fn panel(finished: &Finished<'_>, (model, task): (usize, usize), points: &[&SinglePoint]) -> Panel {
    let study = finished.open.study;
    let headline = finished.tasks[task].headline.0.join(" and ");
    let direction = if finished.lower_is_better(task) { ", lower is better" } else { "" };
    let (model, name) = (&study.models[model].name, &study.tasks[task].name);
    let on = if model == name { String::new() } else { format!(" on {name}") };
    let mut operations: Vec<Operation> = points.iter().filter_map(|point| point.operation).collect();
    operations.sort();
    operations.dedup();
    let line = |operation: Operation| {
        // Every line begins at the fine-tune.
        let of_line = points.iter().filter(|point| point.operation.is_none_or(|of| of == operation));
        let mark = |point: &&SinglePoint| Mark {
            rate: point.rate,
            value: point.score.mean,
            band: point.score.interval,
            bar: point.score.deviation,
        };
        let mut marks: Vec<Mark> = of_line.map(mark).collect();
        marks.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        Line { operation, marks }
    };
    Panel { title: format!("{model}{on}: {headline}{direction}"), lines: operations.into_iter().map(line).collect() }
}
