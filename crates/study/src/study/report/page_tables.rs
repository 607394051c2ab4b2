//! The tables of the page.

use std::collections::BTreeMap;

use crate::html::{Entry, Page};
use crate::study::cells::{Cell, Part};
use crate::study::findings::{Effect, Finished, GridPoint, MergeFinding, SingleComparison, SinglePoint, Spread, Verdict, p_in_words};
use crate::study::subject::Subject;

/// Scores of single models, a row for each operation and rate.
pub fn points(page: &mut Page, finished: &Finished<'_>, points: &[SinglePoint]) {
    let study = finished.open.study;
    let row = |point: &SinglePoint| {
        let operation = point.operation.map_or("as it is", |operation| operation.title());
        let names = [study.models[point.model].name.clone(), study.tasks[point.task].name.clone(), operation.to_owned()];
        let [low, high] = point.score.interval;
        let mut row: Vec<Entry> = names.map(Entry::Text).into();
        row.push(Entry::Number(point.rate.to_string()));
        row.push(Entry::Number(point.score.values.len().to_string()));
        row.push(Entry::Number(number(point.score.mean)));
        row.push(Entry::Number(optional(point.score.deviation)));
        row.push(Entry::Number(optional(point.score.stderr)));
        row.push(Entry::Number(format!("{} to {}", number(low), number(high))));
        row.push(Entry::Number(format!("{:.1}%", 100.0 * point.relative)));
        row.extend(effect(point.effect.as_ref(), finished.lower_is_better(point.task)));
        row
    };
    let header = [
        "model",
        "task",
        "operation",
        "rate",
        "masks",
        "mean",
        "sd over masks",
        "se over items",
        "95% over items",
        "kept",
        "less fine-tune",
        "95%",
        "p",
    ];
    let rows: Vec<Vec<Entry>> = points.iter().map(row).collect();
    let caption = "Headline of each model after each operation: the mean over masks, its standard deviation over masks and its standard error over items apart; the share of \
                   the fine-tune's own headline that is kept; the difference from the fine-tune with its standard error, and p after correction.";
    page.table(caption, &header, &rows);
}

/// DARE against the other operations.
pub fn comparisons(page: &mut Page, finished: &Finished<'_>, comparisons: &[SingleComparison]) {
    let study = finished.open.study;
    let row = |one: &SingleComparison| {
        let names = [study.models[one.model].name.clone(), study.tasks[one.task].name.clone(), one.other.title().to_owned()];
        let mut row: Vec<Entry> = names.map(Entry::Text).into();
        row.push(Entry::Number(one.rate.to_string()));
        row.extend(effect(Some(&one.effect), finished.lower_is_better(one.task)));
        row
    };
    let rows: Vec<Vec<Entry>> = comparisons.iter().map(row).collect();
    let caption = "DARE's headline less that of another operation on the same model at the same rate, means over masks, with the standard error over items, and p after correction.";
    page.table(caption, &["model", "task", "other operation", "rate", "DARE less the other", "95%", "p"], &rows);
}

/// Merges without DARE, and the best of rates beside.
pub fn merges(page: &mut Page, finished: &Finished<'_>, findings: &[MergeFinding]) {
    let row = |finding: &MergeFinding| {
        let best = finding.best_rate.map(|place| &finding.with_dare[place]);
        let tasks =
            finding.headlines.iter().map(|(task, headline)| format!("{} {}", finished.open.study.tasks[*task].name, number(*headline)));
        vec![
            Entry::Text(set(finished, finding)),
            Entry::Text(finding.point.label()),
            Entry::Number(if finding.grid.is_empty() { "1".to_owned() } else { finding.grid.len().to_string() }),
            Entry::Number(spread(&finding.score)),
            Entry::Text(tasks.collect::<Vec<_>>().join(", ")),
            Entry::Number(best.map_or("\u{2013}".to_owned(), |best| format!("{} at {}", spread(&best.score), best.rate))),
            Entry::Number(best.map_or("\u{2013}".to_owned(), |_| (finding.with_dare.len()).to_string())),
        ]
    };
    let rows: Vec<Vec<Entry>> = findings.iter().map(row).collect();
    let caption = "Merges at the point that was chosen, without DARE: the score (\u{b1} standard error over items) and the headlines of the tasks. Beside it, as the paper has it, the \
                   best of DARE's rates, chosen on the reported items themselves: it had more tries than the merge without DARE and is not tested.";
    page.table(caption, &["models", "point", "points tried", "score", "headlines", "best of rates", "rates tried"], &rows);
}

/// All points of the grids.
pub fn grids(page: &mut Page, finished: &Finished<'_>, findings: &[MergeFinding]) {
    let rows = findings.iter().flat_map(|finding| {
        let row = |point: &GridPoint| {
            let chosen = if point.point == finding.point { "chosen" } else { "" };
            let names = [set(finished, finding), point.point.label()].map(Entry::Text);
            names.into_iter().chain([Entry::Number(number(point.score)), Entry::Text(chosen.to_owned())]).collect()
        };
        finding.grid.iter().map(row).collect::<Vec<Vec<Entry>>>()
    });
    let caption = "Scores of all points of the grids, without DARE, on the items on which they were compared.";
    page.table(caption, &["models", "point", "score", ""], &rows.collect::<Vec<_>>());
}

/// What DARE changes at each rate.
pub fn dare(page: &mut Page, finished: &Finished<'_>, findings: &[MergeFinding]) {
    let mut rows = Vec::new();
    let (mut better, mut worse) = (0, 0);
    for finding in findings {
        for with_dare in &finding.with_dare {
            match with_dare.effect.verdict(false) {
                Verdict::Better => better += 1,
                Verdict::Worse => worse += 1,
                Verdict::Open => {}
            }
            let mut row = vec![
                Entry::Text(set(finished, finding)),
                Entry::Text(finding.point.label()),
                Entry::Number(with_dare.rate.to_string()),
                Entry::Number(with_dare.score.values.len().to_string()),
                Entry::Number(spread(&with_dare.score)),
                Entry::Number(optional(with_dare.score.deviation)),
            ];
            row.extend(effect(Some(&with_dare.effect), false));
            rows.push(row);
        }
    }
    let caption = format!(
        "DARE before the method at the same point: the score (mean over masks, \u{b1} standard error over items), its standard deviation over masks, the difference from the same merge \
         without DARE, and p after correction. Of {} comparisons DARE helps in {better} and hurts in {worse} at 95%.",
        rows.len()
    );
    page.table(&caption, &["models", "point", "rate", "masks", "score", "sd over masks", "less without DARE", "95%", "p"], &rows);
}

/// What the paper's TIES trims, where the runs say it.
pub fn trims(page: &mut Page, finished: &Finished<'_>, findings: &[MergeFinding]) {
    let mut rows = Vec::new();
    for finding in findings {
        let plain = std::iter::once((0.0, &finding.notes));
        let dare = finding.with_dare.iter().map(|with_dare| (with_dare.rate, &with_dare.notes));
        for (rate, notes) in plain.chain(dare) {
            let Some(trims) = notes["trims"].as_array() else { continue };
            for (trim, &model) in trims.iter().zip(&finding.models) {
                let figure = |name: &str| trim[name].as_f64();
                rows.push(vec![
                    Entry::Text(set(finished, finding)),
                    Entry::Text(finding.point.label()),
                    Entry::Number(rate.to_string()),
                    Entry::Text(finished.open.study.models[model].name.clone()),
                    Entry::Number(figure("threshold").map_or("\u{2013}".to_owned(), |threshold| format!("{threshold:.3e}"))),
                    Entry::Number(figure("nonzero").map_or("\u{2013}".to_owned(), |share| format!("{:.1}%", 100.0 * share))),
                    Entry::Number(figure("kept").map_or("\u{2013}".to_owned(), |share| format!("{:.1}%", 100.0 * share))),
                ]);
            }
        }
    }
    let caption = "What TIES trims: the threshold over the whole model, the share of deltas that are not zero (frozen tensors and what DARE dropped are), and the share of those \
                   that is kept. Where the trimmed share is at most that of the zeros, the threshold is 0 and nothing is trimmed.";
    page.table(caption, &["models", "point", "DARE's rate", "of", "threshold", "not zero", "of these kept"], &rows);
}

/// Headlines of every subject, replicates taken together.
pub fn subjects(page: &mut Page, finished: &Finished<'_>) {
    let study = finished.open.study;
    let listed = finished.open.list(&finished.kept.cells);
    type Row = (String, Vec<Vec<f64>>, Vec<Option<f64>>);
    let mut rows: Vec<((String, Part), Row)> = Vec::new();
    for (cell, key) in listed.cells.iter().filter(|(cell, _)| cell.part != Part::Selection) {
        let Some(result) = finished.kept.cells.get(key) else { continue };
        let label = without_replicate(&cell.subject.label(study));
        let place = rows.iter().position(|(of, _)| *of == (label.clone(), cell.part)).unwrap_or_else(|| {
            rows.push(((label.clone(), cell.part), (label.clone(), vec![Vec::new(); study.tasks.len()], vec![None; study.tasks.len()])));
            rows.len() - 1
        });
        let (_, values, errors) = &mut rows[place].1;
        values[cell.task].push(result.headline.unwrap_or(f64::NAN));
        errors[cell.task] = result.stderr;
    }
    let entry = |values: &[f64], error: Option<f64>| match values {
        [] => Entry::Number("\u{2013}".to_owned()),
        [value] => Entry::Number(with_error(*value, error)),
        values => Entry::Number(number(values.iter().sum::<f64>() / values.len() as f64)),
    };
    let table: Vec<Vec<Entry>> = rows
        .iter()
        .map(|((label, part), (_, values, errors))| {
            let on = if *part == Part::Report { " (report half)" } else { "" };
            let entries = values.iter().zip(errors).map(|(values, error)| entry(values, *error));
            std::iter::once(Entry::Text(format!("{label}{on}"))).chain(entries).collect()
        })
        .collect();
    let names = study.tasks.iter().enumerate().map(|(task, spec)| {
        let direction = if finished.lower_is_better(task) { ", lower is better" } else { "" };
        format!("{} ({}{direction})", spec.name, finished.tasks[task].headline.0.join(" and "))
    });
    let names: Vec<String> = std::iter::once("subject".to_owned()).chain(names).collect();
    let header: Vec<&str> = names.iter().map(String::as_str).collect();
    page.table("Headlines. Of one run with the standard error over items; of several masks their mean.", &header, &table);
}

fn without_replicate(label: &str) -> String {
    label.split_once(", replicate ").map_or(label, |(before, _)| before).to_owned()
}

/// How long merging takes beside evaluating.
pub fn times(page: &mut Page, finished: &Finished<'_>) {
    #[derive(Default)]
    struct Times {
        merges: usize,
        merge: f64,
        statistics: f64,
        evaluate: f64,
    }
    let listed = finished.open.list(&finished.kept.cells);
    let mut by_kind: BTreeMap<String, Times> = BTreeMap::new();
    let mut subjects: Vec<&Subject> = Vec::new();
    for (cell, key) in &listed.cells {
        let Some(result) = finished.kept.cells.get(key) else { continue };
        let times = by_kind.entry(kind(&cell.subject)).or_default();
        // As if the cell had been run on all items of the task.
        let all = finished.open.tasks.of(&Cell { part: Part::All, ..cell.clone() }).items as f64;
        times.evaluate += result.seconds.evaluate * all / finished.open.tasks.of(cell).items as f64;
        if !subjects.contains(&&cell.subject) {
            subjects.push(&cell.subject);
            times.merges += 1;
            times.merge += result.seconds.merge;
            times.statistics += result.seconds.statistics;
        }
    }
    let row = |(kind, times): (&String, &Times)| {
        let share = times.merge / (times.merge + times.evaluate);
        vec![
            Entry::Text(kind.clone()),
            Entry::Number(times.merges.to_string()),
            Entry::Number(format!("{:.2}", times.merge / times.merges as f64)),
            Entry::Number(format!("{:.1}", times.evaluate / times.merges as f64)),
            Entry::Number(format!("{:.1}%", 100.0 * share)),
            Entry::Number(format!("{:.1}", times.statistics)),
        ]
    };
    let rows: Vec<Vec<Entry>> = by_kind.iter().map(row).collect();
    let caption = "Seconds on the machine that ran the cells, by method: merging and evaluating one subject on all items of its tasks (measured on those that it was evaluated on), \
                   merging's share of both, and the making of statistics (all together), which other merges use again.";
    page.table(caption, &["method", "subjects", "merging", "evaluating", "merging's share", "statistics"], &rows);
}

fn kind(subject: &Subject) -> String {
    match subject {
        Subject::Base | Subject::FineTuned(_) => "no merge".to_owned(),
        Subject::Merge(merge) if merge.models.len() == 1 => {
            format!("one model, {}", merge.drop.map_or("nothing dropped", |drop| drop.operation.title()))
        }
        Subject::Merge(merge) => {
            let dare = if merge.drop.is_some() { " after DARE" } else { "" };
            format!("{} of {} models{dare}", merge.method.method, merge.models.len())
        }
    }
}

/// Models by what they are, tasks by their items.
pub fn inputs(page: &mut Page, finished: &Finished<'_>) {
    let (study, open) = (finished.open.study, finished.open);
    let model = |place: Option<usize>, name: &str| {
        let task = place.map_or(String::new(), |model| study.models[model].task.clone());
        let id: String = open.models.id(place).chars().take(16).collect();
        [name.to_owned(), open.models.reference(place), task, id].map(Entry::Text).into()
    };
    let models = study.models.iter().enumerate().map(|(place, spec)| model(Some(place), &spec.name));
    let rows: Vec<Vec<Entry>> = std::iter::once(model(None, "base")).chain(models).collect();
    page.table("Models, with the beginning of the hash of their weights.", &["name", "model", "fine-tuned on", "id"], &rows);
    let items = |task: usize, part: Part| open.tasks.part(task, part).map_or("\u{2013}".to_owned(), |part| part.items.to_string());
    let row = |(task, spec): (usize, &crate::study::schema::StudyTask)| {
        let mut row = vec![Entry::Text(spec.name.clone()), Entry::Text(finished.tasks[task].task.clone())];
        row.extend([Part::All, Part::Selection, Part::Report].map(|part| Entry::Number(items(task, part))));
        row
    };
    let rows: Vec<Vec<Entry>> = study.tasks.iter().enumerate().map(row).collect();
    page.table("Tasks, with the number of their items.", &["name", "task", "items", "for the choice", "reported"], &rows);
}

fn set(finished: &Finished<'_>, finding: &MergeFinding) -> String {
    finding.models.iter().map(|&model| finished.open.study.models[model].name.as_str()).collect::<Vec<_>>().join(" + ")
}

/// Difference, 95% interval, p.
fn effect(effect: Option<&Effect>, lower_is_better: bool) -> [Entry; 3] {
    let Some(effect) = effect else { return ["", "", ""].map(|nothing| Entry::Number(nothing.to_owned())) };
    let text = format!("{:+.4}{}", effect.difference, effect.stderr.map_or(String::new(), |error| format!(" \u{b1} {error:.4}")));
    let p = effect.adjusted.map_or("\u{2013}".to_owned(), p_in_words);
    let marked = match effect.verdict(lower_is_better) {
        Verdict::Better => Entry::Better(text),
        Verdict::Worse => Entry::Worse(text),
        Verdict::Open => Entry::Number(text),
    };
    let [low, high] = effect.interval;
    [marked, Entry::Number(format!("{low:+.4} to {high:+.4}")), Entry::Number(p)]
}

fn spread(spread: &Spread) -> String {
    with_error(spread.mean, spread.stderr)
}

fn with_error(value: f64, error: Option<f64>) -> String {
    format!("{}{}", number(value), error.map_or(String::new(), |error| format!(" \u{b1} {error:.4}")))
}

fn optional(value: Option<f64>) -> String {
    value.map_or("\u{2013}".to_owned(), number)
}

fn number(value: f64) -> String {
    if value.is_finite() { format!("{value:.4}") } else { "\u{2013}".to_owned() }
}
