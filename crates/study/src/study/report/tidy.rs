//! All cells as one tidy table: a row for each, a column for each variable.

use std::collections::BTreeSet;

use deltaic_checkpoint::{Error, Result};

use crate::study::cells::{Cell, Part, relative};
use crate::study::findings::Finished;
use crate::study::open::Listed;
use crate::study::schema::Study;
use crate::study::subject::{Merge, Subject};

/// Columns before those of the metrics.
const COLUMNS: [&str; 14] = [
    "study",
    "subject",
    "models",
    "method",
    "parameters",
    "operation",
    "drop_rate",
    "replicate",
    "task",
    "part",
    "items",
    "headline",
    "stderr",
    "relative",
];
/// Columns behind them.
const TIMES: [&str; 3] = ["statistics_seconds", "merge_seconds", "evaluate_seconds"];

/// The table of all cells that have been run, as CSV.
pub fn csv(finished: &Finished<'_>, listed: &Listed) -> Result<String> {
    let done = || listed.cells.iter().filter_map(|(cell, key)| Some((cell, finished.kept.cells.get(key)?)));
    let metrics: BTreeSet<&String> = done().flat_map(|(_, result)| result.metrics.keys()).collect();
    let mut table = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| Error::new(format!("writing the table: {error}"));
    let header = COLUMNS.into_iter().chain(metrics.iter().map(|name| name.as_str())).chain(TIMES);
    table.write_record(header).map_err(failed)?;
    for (cell, result) in done() {
        let mut row = described(finished.open.study, cell);
        row.push(finished.open.tasks.of(cell).items.to_string());
        row.extend([result.headline, result.stderr, relative_headline(finished, cell)].map(number));
        row.extend(metrics.iter().map(|name| number(result.metrics.get(*name).copied().flatten())));
        let seconds = result.seconds;
        row.extend([seconds.statistics, seconds.merge, seconds.evaluate].map(|seconds| format!("{seconds:.3}")));
        table.write_record(row).map_err(failed)?;
    }
    let bytes = table.into_inner().map_err(|error| Error::new(format!("writing the table: {error}")))?;
    String::from_utf8(bytes).map_err(|error| Error::new(format!("writing the table: {error}")))
}

/// The columns up to the part.
fn described(study: &Study, cell: &Cell) -> Vec<String> {
    let names = |models: &[usize]| models.iter().map(|&model| study.models[model].name.as_str()).collect::<Vec<_>>().join("+");
    let (kind, models, merge) = match &cell.subject {
        Subject::Base => ("base", String::new(), None),
        Subject::FineTuned(model) => ("fine-tune", names(&[*model]), None),
        Subject::Merge(merge) if merge.models.len() == 1 => ("single", names(&merge.models), Some(merge)),
        Subject::Merge(merge) => ("merge", names(&merge.models), Some(merge)),
    };
    let method = merge.filter(|merge| merge.models.len() > 1).map(|merge: &Merge| &merge.method);
    let parameters =
        method.map(|point| point.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(";"));
    let drop = merge.and_then(|merge| merge.drop);
    let part = match cell.part {
        Part::All => "all",
        Part::Selection => "selection",
        Part::Report => "report",
    };
    vec![
        study.study.clone(),
        kind.to_owned(),
        models,
        method.map(|point| point.method.clone()).unwrap_or_default(),
        parameters.unwrap_or_default(),
        drop.map(|drop| drop.operation.name().to_owned()).unwrap_or_default(),
        drop.map_or("0".to_owned(), |drop| drop.rate.to_string()),
        drop.filter(|drop| drop.operation.is_random()).map(|drop| drop.replicate.to_string()).unwrap_or_default(),
        study.tasks[cell.task].name.clone(),
        part.to_owned(),
    ]
}

/// A cell's headline by that of the task's own fine-tune on the same items, where that has been run.
fn relative_headline(finished: &Finished<'_>, cell: &Cell) -> Option<f64> {
    let own = finished.open.study.model_of(cell.task)?;
    let own = finished.headline(&Cell { subject: Subject::FineTuned(own), task: cell.task, part: cell.part })?;
    Some(relative(finished.headline(cell)?, own, finished.lower_is_better(cell.task)))
}

/// A number with six digits behind the point; nothing for what is unknown or not a number.
fn number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map(|value| format!("{value:.6}")).unwrap_or_default()
}
