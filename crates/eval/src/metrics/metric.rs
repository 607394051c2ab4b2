//! A metric: what was measured on each item, and how it becomes one number with a standard error.

use std::sync::Arc;

use deltaic_checkpoint::{Error, Result};
use serde::{Serialize, Serializer};

use super::bootstrap::Resamples;
use super::{Confusion, mean, pearson, sample_deviation, spearman};

/// A metric over a task's items. Values are fractions of 1, or nats for log-likelihoods.
#[derive(Debug, Clone)]
pub struct Metric {
    name: String,
    items: u32,
    statistic: Statistic,
}

/// What was measured, and the function of it. Every list has one element per item.
#[derive(Debug, Clone)]
pub(super) enum Statistic {
    Mean(Vec<f64>),
    F1(Labels),
    Matthews(Labels),
    Pearson(Scores),
    Spearman(Scores),
    Ratio(Sums, Scale),
    /// The plain mean of several metrics over the same items.
    Average(Vec<Metric>),
}

/// Gold and predicted labels.
pub(super) type Labels = Arc<[(usize, Option<usize>)]>;
/// Gold and predicted scores.
pub(super) type Scores = Arc<(Vec<f64>, Vec<f64>)>;
/// Negative log-likelihoods, and the lengths by which their sum is divided.
pub(super) type Sums = Arc<(Vec<f64>, Vec<f64>)>;

/// What is made of a quotient of sums.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    Plain,
    Exp,
    Bits,
}

impl Scale {
    fn of(self, ratio: f64) -> f64 {
        match self {
            Self::Plain => ratio,
            Self::Exp => libm::exp(ratio),
            Self::Bits => ratio / std::f64::consts::LN_2,
        }
    }

    fn derivative(self, ratio: f64) -> f64 {
        match self {
            Self::Plain => 1.0,
            Self::Exp => libm::exp(ratio),
            Self::Bits => 1.0 / std::f64::consts::LN_2,
        }
    }
}

/// A value and its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The metric over all items; not finite where it is not defined (`null` in JSON).
    pub value: f64,
    /// Its standard error, in the value's unit; none of a single item, or where the value is not finite.
    pub stderr: Option<f64>,
    /// How the standard error was computed.
    pub method: StderrMethod,
}

/// How a standard error was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StderrMethod {
    /// Sample standard deviation over the square root of the number of items: of means.
    Mean,
    /// The first-order (delta) method, of quotients of sums and functions of them: with `r = sum(y) / sum(x)`, `SD(y - r x) sqrt(n) / sum(x)`, times
    /// the function's derivative at `r`.
    Delta,
    /// Sample standard deviation over [`Resamples`]: of what holds an F1 or a correlation.
    Bootstrap {
        /// How many.
        resamples: usize,
    },
    /// By lm-evaluation-harness, whose result it is.
    Harness,
}

impl StderrMethod {
    /// What the JSON output says: `sd/sqrt(n)`, `delta method`, `bootstrap (1000 resamples)`, `lm-evaluation-harness`.
    pub fn describe(self) -> String {
        match self {
            Self::Mean => "sd/sqrt(n)".to_owned(),
            Self::Delta => "delta method".to_owned(),
            Self::Bootstrap { resamples } => format!("bootstrap ({resamples} resamples)"),
            Self::Harness => "lm-evaluation-harness".to_owned(),
        }
    }
}

impl Serialize for StderrMethod {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.describe())
    }
}

impl Metric {
    /// The mean of a value per item: 1 for right and 0 for wrong, a mass, a win rate.
    ///
    /// # Errors
    /// There are no items. (So for all that make a metric.)
    pub fn mean(name: impl Into<String>, values: Vec<f64>) -> Result<Self> {
        Self::new(name.into(), values.len(), Statistic::Mean(values))
    }

    /// The share of items that are right.
    ///
    /// # Errors
    /// There are no items.
    pub fn share(name: impl Into<String>, right: impl IntoIterator<Item = bool>) -> Result<Self> {
        Self::mean(name, right.into_iter().map(f64::from).collect())
    }

    /// Accuracy of predicted labels. No prediction is wrong.
    ///
    /// # Errors
    /// There are no items, or not as many predictions.
    pub fn accuracy(name: impl Into<String>, gold: &[usize], predicted: &[Option<usize>]) -> Result<Self> {
        Self::share(name, labels(gold, predicted)?.iter().map(|&(gold, predicted)| predicted == Some(gold)))
    }

    /// Binary F1 of label 1.
    ///
    /// # Errors
    /// There are no items, or not as many predictions.
    pub fn f1(name: impl Into<String>, gold: &[usize], predicted: &[Option<usize>]) -> Result<Self> {
        Self::new(name.into(), gold.len(), Statistic::F1(labels(gold, predicted)?))
    }

    /// Matthews' correlation of binary labels.
    ///
    /// # Errors
    /// There are no items, or not as many predictions.
    pub fn matthews(name: impl Into<String>, gold: &[usize], predicted: &[Option<usize>]) -> Result<Self> {
        Self::new(name.into(), gold.len(), Statistic::Matthews(labels(gold, predicted)?))
    }

    /// Pearson's correlation of gold and predicted scores.
    ///
    /// # Errors
    /// There are no items, or not as many predictions.
    pub fn pearson(name: impl Into<String>, gold: &[f64], predicted: &[f64]) -> Result<Self> {
        Self::new(name.into(), gold.len(), Statistic::Pearson(columns(gold, predicted)?))
    }

    /// Spearman's correlation of gold and predicted scores.
    ///
    /// # Errors
    /// There are no items, or not as many predictions.
    pub fn spearman(name: impl Into<String>, gold: &[f64], predicted: &[f64]) -> Result<Self> {
        Self::new(name.into(), gold.len(), Statistic::Spearman(columns(gold, predicted)?))
    }

    /// `-sum(log_likelihoods) / sum(lengths)`, in nats per unit of length: the negative log-likelihood per token.
    ///
    /// # Errors
    /// There are no items, or not as many lengths.
    pub fn nll(name: impl Into<String>, log_likelihoods: &[f64], lengths: &[f64]) -> Result<Self> {
        Self::ratio(name.into(), log_likelihoods, lengths, Scale::Plain)
    }

    /// `exp(-sum(log_likelihoods) / sum(lengths))`: word, byte or token perplexity.
    ///
    /// # Errors
    /// There are no items, or not as many lengths.
    pub fn perplexity(name: impl Into<String>, log_likelihoods: &[f64], lengths: &[f64]) -> Result<Self> {
        Self::ratio(name.into(), log_likelihoods, lengths, Scale::Exp)
    }

    /// `-sum(log_likelihoods) / (sum(bytes) ln 2)`.
    ///
    /// # Errors
    /// There are no items, or not as many lengths.
    pub fn bits_per_byte(name: impl Into<String>, log_likelihoods: &[f64], bytes: &[f64]) -> Result<Self> {
        Self::ratio(name.into(), log_likelihoods, bytes, Scale::Bits)
    }

    /// The plain mean of several metrics over the same items: the headline of MRPC, QQP and STS-B. Of one metric it is that metric by another name.
    ///
    /// # Errors
    /// There are no metrics, or they are not over the same number of items.
    pub fn average(name: impl Into<String>, metrics: Vec<Self>) -> Result<Self> {
        let name = name.into();
        let Some(first) = metrics.first() else { return Err(Error::new(format!("{name}: a mean of no metrics"))) };
        if let Some(other) = metrics.iter().find(|metric| metric.items != first.items) {
            let (a, b) = (first, other);
            let counts = format!("{} is over {} items, {} over {}", a.name, a.items, b.name, b.items);
            return Err(Error::new(format!("{name}: a mean of metrics over different items: {counts}")));
        }
        let (items, only) = (first.items(), metrics.len() == 1);
        let statistic = if only { first.statistic.clone() } else { Statistic::Average(metrics) };
        Self::new(name, items, statistic)
    }

    fn ratio(name: String, log_likelihoods: &[f64], lengths: &[f64], scale: Scale) -> Result<Self> {
        let negative: Vec<f64> = log_likelihoods.iter().map(|value| -value).collect();
        Self::new(name, lengths.len(), Statistic::Ratio(columns(&negative, lengths)?, scale))
    }

    fn new(name: String, items: usize, statistic: Statistic) -> Result<Self> {
        match u32::try_from(items) {
            Ok(0) => {
                Err(Error::new(format!("{name}: a metric of no items"))
                    .help("is the data file empty, or the range of items outside of it?"))
            }
            Ok(items) => Ok(Self { name, items, statistic }),
            Err(_) => Err(Error::new(format!("{name}: {items} items are more than 2^32"))),
        }
    }

    /// Its name in results.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn statistic(&self) -> &Statistic {
        &self.statistic
    }

    /// Over how many items it is.
    pub fn items(&self) -> usize {
        self.items as usize
    }

    /// The metric over all items.
    pub fn value(&self) -> f64 {
        self.value_on(&(0..self.items).collect::<Vec<_>>())
    }

    /// The metric over some of the items, each as often as its index stands in `set`. An index that is no item's is passed over.
    pub fn value_on(&self, set: &[u32]) -> f64 {
        match &self.statistic {
            Statistic::Mean(values) => mean(&chosen(values, set)),
            Statistic::F1(labels) => Confusion::of(chosen(labels, set)).f1(),
            Statistic::Matthews(labels) => Confusion::of(chosen(labels, set)).matthews(),
            Statistic::Pearson(scores) => pearson(&chosen(&scores.0, set), &chosen(&scores.1, set)),
            Statistic::Spearman(scores) => spearman(&chosen(&scores.0, set), &chosen(&scores.1, set)),
            Statistic::Ratio(sums, scale) => scale.of(quotient(&chosen(&sums.0, set), &chosen(&sums.1, set))),
            Statistic::Average(metrics) => metrics.iter().map(|metric| metric.value_on(set)).sum::<f64>() / metrics.len() as f64,
        }
    }

    /// The value of each item, where the metric is their mean; of a mean of such metrics each item's mean.
    pub fn per_item(&self) -> Option<Vec<f64>> {
        match &self.statistic {
            Statistic::Mean(values) => Some(values.clone()),
            Statistic::Average(metrics) => {
                let columns: Vec<_> = metrics.iter().map(Self::per_item).collect::<Option<_>>()?;
                Some((0..self.items()).map(|item| columns.iter().map(|values| values[item]).sum::<f64>() / columns.len() as f64).collect())
            }
            _ => None,
        }
    }

    /// The value with its standard error, by `sd/sqrt(n)` for a mean, the delta method for one quotient of sums, and the bootstrap over `resamples`
    /// for the rest. (Only the last uses them.)
    pub fn estimate(&self, resamples: &Resamples) -> Estimate {
        let value = self.value();
        let (stderr, method) = match (&self.statistic, self.per_item()) {
            (_, Some(values)) => (sample_deviation(&values).map(|deviation| deviation / (values.len() as f64).sqrt()), StderrMethod::Mean),
            (Statistic::Ratio(sums, scale), None) => (delta_method(&sums.0, &sums.1, *scale), StderrMethod::Delta),
            _ => (resamples.standard_error(|set| self.value_on(set)), StderrMethod::Bootstrap { resamples: resamples.count() }),
        };
        Estimate { value, stderr: stderr.filter(|_| value.is_finite()), method }
    }
}

fn labels(gold: &[usize], predicted: &[Option<usize>]) -> Result<Labels> {
    same_length(gold.len(), predicted.len())?;
    Ok(gold.iter().copied().zip(predicted.iter().copied()).collect())
}

fn columns(first: &[f64], second: &[f64]) -> Result<Arc<(Vec<f64>, Vec<f64>)>> {
    same_length(first.len(), second.len())?;
    Ok(Arc::new((first.to_vec(), second.to_vec())))
}

fn same_length(first: usize, second: usize) -> Result<()> {
    if first == second { Ok(()) } else { Err(Error::new(format!("a metric of {first} values on one side and {second} on the other"))) }
}

fn chosen<T: Copy>(values: &[T], set: &[u32]) -> Vec<T> {
    set.iter().filter_map(|&index| values.get(index as usize).copied()).collect()
}

fn quotient(above: &[f64], below: &[f64]) -> f64 {
    above.iter().sum::<f64>() / below.iter().sum::<f64>()
}

/// Cochran, Sampling Techniques, eq. 6.9, without the finite population's factor.
fn delta_method(above: &[f64], below: &[f64], scale: Scale) -> Option<f64> {
    let ratio = quotient(above, below);
    let residuals: Vec<f64> = above.iter().zip(below).map(|(y, x)| y - ratio * x).collect();
    let deviation = sample_deviation(&residuals)?;
    let error = deviation * (above.len() as f64).sqrt() / below.iter().sum::<f64>() * scale.derivative(ratio);
    Some(error).filter(|error| error.is_finite())
}
