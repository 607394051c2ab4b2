//! From the numbers of all items to a task's metrics.

use deltaic_checkpoint::{Error, Result};

use crate::metrics::Metric;
use crate::score::Scored;
use crate::task::{ClassificationMetric, Kind, Task};

/// The metrics of a task over scored items, in the order of tables; and the headline, where the task has one.
///
/// # Errors
/// There are no items, or items without a number that a metric is made of.
pub fn measure(task: &Task, scored: &[Scored]) -> Result<(Vec<Metric>, Option<Metric>)> {
    let column = |name: &str| -> Result<Vec<f64>> {
        let number = |scored: &Scored| scored.numbers.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
        let missing = || Error::new(format!("{}: an item has no number `{name}`", task.task));
        scored.iter().map(|scored| number(scored).ok_or_else(missing)).collect()
    };
    let metrics = match task.kind()? {
        Kind::Classification(spec) => {
            let (gold, predicted) = (column("gold")?, column("prediction")?);
            spec.metrics.iter().map(|&metric| of_predictions(metric, &gold, &predicted)).collect::<Result<_>>()?
        }
        Kind::AnswerNll(_) => {
            let (sums, tokens) = (column("log_likelihood")?, column("tokens")?);
            vec![Metric::nll("nll", &sums, &tokens)?, Metric::perplexity("perplexity", &sums, &tokens)?]
        }
        Kind::Perplexity(_) => {
            let (sums, bytes) = (column("log_likelihood")?, column("bytes")?);
            vec![
                Metric::perplexity("word_perplexity", &sums, &column("words")?)?,
                Metric::perplexity("byte_perplexity", &sums, &bytes)?,
                Metric::bits_per_byte("bits_per_byte", &sums, &bytes)?,
                Metric::nll("nll", &sums, &column("tokens")?)?,
            ]
        }
        // Of the other kinds every number is a metric, as a mean.
        Kind::MultipleChoice(_) | Kind::Generation(_) | Kind::PairwiseJudge(_) => {
            let names = scored.first().map(|first| first.numbers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
            let names = names.unwrap_or_default();
            names.into_iter().map(|name| Metric::mean(name.clone(), column(&name)?)).collect::<Result<_>>()?
        }
    };
    let parts = task.headline.0.iter().map(|name| {
        let found = metrics.iter().find(|metric| metric.name() == name).cloned();
        found.ok_or_else(|| Error::new(format!("{}: the headline `{name}` is no metric of this task", task.task)))
    });
    let parts: Vec<Metric> = parts.collect::<Result<_>>()?;
    let headline = if parts.is_empty() { None } else { Some(Metric::average("headline", parts)?) };
    Ok((metrics, headline))
}

/// The headline of a task, from the numbers that were recorded of each item ([`ItemRecord::numbers`](crate::ItemRecord::numbers)): to have it
/// again over other sets of items. None where the task has no headline.
///
/// # Errors
/// There are no items, or items without a number that the headline is made of.
pub fn headline(task: &Task, items: impl IntoIterator<Item = Vec<(String, f64)>>) -> Result<Option<Metric>> {
    let scored: Vec<Scored> = items.into_iter().map(|numbers| Scored { numbers, ..Scored::default() }).collect();
    measure(task, &scored).map(|(_, headline)| headline)
}

fn of_predictions(metric: ClassificationMetric, gold: &[f64], predicted: &[f64]) -> Result<Metric> {
    let labels: Vec<usize> = gold.iter().map(|&label| label as usize).collect();
    let said: Vec<Option<usize>> = predicted.iter().map(|&label| (label >= 0.0).then_some(label as usize)).collect();
    match metric {
        ClassificationMetric::Accuracy => Metric::accuracy("accuracy", &labels, &said),
        ClassificationMetric::F1 => Metric::f1("f1", &labels, &said),
        ClassificationMetric::Matthews => Metric::matthews("matthews", &labels, &said),
        ClassificationMetric::Pearson => Metric::pearson("pearson", gold, predicted),
        ClassificationMetric::Spearman => Metric::spearman("spearman", gold, predicted),
    }
}
