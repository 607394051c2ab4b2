//! What is measured beside scores: tables and figures.

use super::panels::{Line, Mark, Panel, draw as draw_panels};
use crate::html::{Entry, Page};
use crate::study::findings::{Finished, Near, near, ranges};
use crate::study::measures::DeltaRanges;
use crate::study::schema::Operation;

/// Figures of what has been measured: the deltas of every model, and the last hidden state against drop rate.
pub fn figures(finished: &Finished<'_>) -> Vec<(String, String)> {
    let study = finished.open.study;
    let of_deltas =
        ranges(finished).into_iter().map(|(model, ranges)| (format!("deltas-{}", study.models[model].name), ranges.figure.clone()));
    of_deltas.chain(similarity_figure(finished)).collect()
}

/// Tables of what has been measured.
pub fn tables(page: &mut Page, finished: &Finished<'_>) {
    let study = finished.open.study;
    let ranges = ranges(finished);
    if !ranges.is_empty() {
        page.heading("Ranges of the deltas");
        let rows: Vec<Vec<Entry>> = ranges.iter().map(|(model, ranges)| row_of_deltas(&study.models[*model].name, ranges)).collect();
        let mut header = vec![
            "model".to_owned(),
            "deltas".to_owned(),
            "least".to_owned(),
            "greatest".to_owned(),
            "mean magnitude".to_owned(),
            "zero".to_owned(),
        ];
        let (_, first) = &ranges[0];
        header.extend(first.quantiles.iter().map(|(share, _)| format!("q {share}")));
        header.extend(first.within.iter().map(|(limit, _)| format!("within {limit}")));
        header.push("regime".to_owned());
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let caption = "Each model less the base, tensors that were excluded left out: range, quantiles, and shares of the deltas whose magnitude is at most a limit. The paper's \
                       deltas lie within 0.002 to 0.005 for usual fine-tuning.";
        page.table(caption, &header, &rows);
    }
    let near = near(finished);
    if near.is_empty() {
        return;
    }
    page.heading("Hidden states");
    let mut rows = Vec::new();
    for Near { model, drop, similarity } in &near {
        for (state, found) in similarity.states.iter().enumerate() {
            let mut row = vec![
                Entry::Text(study.models[*model].name.clone()),
                Entry::Text(drop.operation.title().to_owned()),
                Entry::Number(drop.rate.to_string()),
                Entry::Number(drop.replicate.to_string()),
                Entry::Number(state.to_string()),
                Entry::Number(similarity.tokens.to_string()),
                Entry::Number(format!("{:.4}", found.mean)),
            ];
            row.extend(found.deciles.iter().map(|decile| Entry::Number(format!("{decile:.4}"))));
            rows.push(row);
        }
    }
    let caption = "Cosine between the hidden states of a fine-tune and of itself after an operation, at every token of its task's items: mean and deciles. State 0 is the embeddings, \
                   the others are the layers' outputs.";
    let header = [
        "model",
        "operation",
        "rate",
        "replicate",
        "state",
        "tokens",
        "mean",
        "10%",
        "20%",
        "30%",
        "40%",
        "50%",
        "60%",
        "70%",
        "80%",
        "90%",
    ];
    page.table(caption, &header, &rows);
}

fn row_of_deltas(name: &str, ranges: &DeltaRanges) -> Vec<Entry> {
    let short = |value: f64| Entry::Number(format!("{value:.5}"));
    let percent = |share: f64| Entry::Number(format!("{:.2}%", 100.0 * share));
    let mut row = vec![Entry::Text(name.to_owned()), Entry::Number(ranges.elements.to_string())];
    row.extend([ranges.range[0], ranges.range[1], ranges.mean_magnitude].map(short));
    row.push(percent(ranges.unchanged));
    row.extend(ranges.quantiles.iter().map(|(_, quantile)| short(*quantile)));
    row.extend(ranges.within.iter().map(|(_, share)| percent(*share)));
    row.push(Entry::Text(ranges.regime.clone()));
    row
}

fn similarity_figure(finished: &Finished<'_>) -> Option<(String, String)> {
    let study = finished.open.study;
    let near = near(finished);
    let panel = |model: usize| {
        let of_model: Vec<&Near<'_>> = near.iter().filter(|near| near.model == model && near.drop.replicate == 0).collect();
        let mut operations: Vec<Operation> = of_model.iter().map(|near| near.drop.operation).collect();
        operations.sort();
        operations.dedup();
        let line = |operation: Operation| {
            let of_line = of_model.iter().filter(|near| near.drop.operation == operation);
            let mark = |near: &&Near<'_>| {
                let last = near.similarity.states.last()?;
                Some(Mark { rate: near.drop.rate, value: last.mean, band: [last.deciles[0], last.deciles[8]], bar: None })
            };
            let mut marks: Vec<Mark> = of_line.filter_map(mark).collect();
            marks.sort_by(|a, b| a.rate.total_cmp(&b.rate));
            Line { operation, marks }
        };
        let lines: Vec<Line> = operations.into_iter().map(line).collect();
        (!lines.is_empty()).then(|| Panel { title: format!("{}: cosine at the last hidden state", study.models[model].name), lines })
    };
    let panels: Vec<Panel> = (0..study.models.len()).filter_map(panel).collect();
    let title = format!("{}: how near hidden states stay", study.study);
    (!panels.is_empty()).then(|| ("similarity".to_owned(), draw_panels(&title, &panels)))
}
