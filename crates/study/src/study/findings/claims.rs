//! Claims of the paper, held against the numbers. Criteria are fixed here, before any number is known.

use super::Findings;
use super::effect::{Effect, Verdict, mean, p_in_words};
use super::finished::Finished;
use super::measured::{near, ranges};
use super::single::SinglePoint;
use crate::study::measures::DeltaRanges;
use crate::study::schema::Operation;

/// A fine-tune is kept where this share of its headline is.
const KEPT: f64 = 0.95;
/// A high drop rate, as the paper's claims have it.
const HIGH: f64 = 0.9;
/// A very high one, for "larger models".
const VERY_HIGH: f64 = 0.99;

/// A claim and what the numbers say.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The claim, in the paper's sense.
    pub claim: String,
    /// When it is said to hold.
    pub criterion: String,
    /// In how many cases it holds.
    pub holds: usize,
    /// In how many cases the opposite is shown.
    pub opposite: usize,
    /// How many cases there are.
    pub cases: usize,
    /// Whether it is a test that says so.
    pub tested: bool,
    /// The numbers, case by case.
    pub numbers: String,
}

impl Claim {
    /// In words: holds, does not hold, holds in some.
    pub fn verdict(&self) -> String {
        match (self.holds, self.opposite, self.cases) {
            (holds, _, cases) if holds == cases => "holds at this size".to_owned(),
            (0, opposite, cases) if opposite == cases => "does not hold at this size: the opposite is shown".to_owned(),
            (0, 0, _) if self.tested => "does not hold at this size: nothing is significant either way".to_owned(),
            (0, 0, _) => "does not hold at this size".to_owned(),
            (holds, 0, cases) => format!("holds at this size in {holds} of {cases} cases"),
            (holds, opposite, cases) => format!("holds at this size in {holds} of {cases} cases, the opposite in {opposite}"),
        }
    }
}

/// The claims about which the findings say something.
pub fn claims(finished: &Finished<'_>, findings: &Findings) -> Vec<Claim> {
    let study = finished.open.study;
    let on = |model: usize, task: usize| match study.task_of(model) == task {
        true => study.models[model].name.clone(),
        false => format!("{} on {}", study.models[model].name, study.tasks[task].name),
    };
    let name = |point: &SinglePoint| on(point.model, point.task);
    let mut claims: Vec<Claim> = small(finished).into_iter().collect();
    for rate in [HIGH, VERY_HIGH] {
        claims.extend(kept(findings, rate, &name));
    }
    let lower = |task: usize| finished.lower_is_better(task);
    let sentences = [
        (Operation::DropOnly, "Without rescaling, scores fall off earlier than with DARE."),
        (Operation::Magnitude, "At high drop rates magnitude pruning is worse than DARE."),
        (Operation::OfWeights, "Dropping fine-tuned weights instead of deltas is worse at the same rate, already at the lowest."),
    ];
    for (other, sentence) in sentences {
        let rate = if other == Operation::OfWeights { lowest_rate(findings, other) } else { Some(HIGH) };
        claims.extend(rate.and_then(|rate| better_than(&on, findings, other, sentence, rate, &lower)));
    }
    claims.extend(collapses(findings, &name));
    claims.extend(stay_near(finished));
    claims.extend(merging(findings));
    claims
}

/// Deltas are small.
fn small(finished: &Finished<'_>) -> Option<Claim> {
    /// Nearly all of them.
    const NEARLY_ALL: f64 = 0.99;
    let ranges = ranges(finished);
    let within =
        |ranges: &DeltaRanges, limit: f64| ranges.within.iter().find(|(known, _)| is(*known, limit)).map_or(f64::NAN, |(_, share)| *share);
    let numbers = ranges.iter().map(|(model, ranges)| {
        let [two, five] = [0.002, 0.005].map(|limit| 100.0 * within(ranges, limit));
        format!("{}: {two:.2}% within 0.002, {five:.2}% within 0.005", finished.open.study.models[*model].name)
    });
    (!ranges.is_empty()).then(|| Claim {
        claim: "The deltas of usual fine-tuning are small: they lie within 0.005.".to_owned(),
        criterion: format!("at least {:.0}% of them do", 100.0 * NEARLY_ALL),
        holds: ranges.iter().filter(|(_, ranges)| within(ranges, 0.005) >= NEARLY_ALL).count(),
        opposite: 0,
        cases: ranges.len(),
        tested: false,
        numbers: listed(numbers),
    })
}

/// DARE keeps hidden states where they were, DropOnly does not.
fn stay_near(finished: &Finished<'_>) -> Option<Claim> {
    let near = near(finished);
    let at = |model: usize, operation: Operation| {
        let last = near.iter().filter(|near| near.model == model && near.drop.operation == operation && is(near.drop.rate, HIGH));
        let means: Vec<f64> = last.filter_map(|near| Some(near.similarity.states.last()?.mean)).collect();
        (!means.is_empty()).then(|| mean(&means))
    };
    let models = 0..finished.open.study.models.len();
    let pairs: Vec<(usize, f64, f64)> =
        models.filter_map(|model| Some((model, at(model, Operation::Dare)?, at(model, Operation::DropOnly)?))).collect();
    let number = |(model, dare, only): &(usize, f64, f64)| {
        format!("{}: {dare:.4} after DARE, {only:.4} after DropOnly", finished.open.study.models[*model].name)
    };
    (!pairs.is_empty()).then(|| Claim {
        claim: "DARE keeps a fine-tune's hidden states near to its own; without rescaling they go astray.".to_owned(),
        criterion: format!("the mean cosine at the last hidden state is higher after DARE than after DropOnly, both at rate {HIGH}"),
        holds: pairs.iter().filter(|(_, dare, only)| dare > only).count(),
        opposite: pairs.iter().filter(|(_, dare, only)| dare < only).count(),
        cases: pairs.len(),
        tested: false,
        numbers: listed(pairs.iter().map(number)),
    })
}

/// DARE at a rate keeps what a fine-tune can do.
fn kept(findings: &Findings, rate: f64, name: &dyn Fn(&SinglePoint) -> String) -> Option<Claim> {
    let at = |point: &&SinglePoint| point.operation == Some(Operation::Dare) && is(point.rate, rate);
    let points: Vec<&SinglePoint> = findings.points.iter().filter(at).collect();
    let sentence = match is(rate, HIGH) {
        true => "90% of the deltas of a fine-tune can be dropped by DARE with little loss.",
        false => "99% of the deltas can be dropped (the paper claims it for larger models).",
    };
    let holds = points.iter().filter(|point| point.relative >= KEPT).count();
    (!points.is_empty()).then(|| Claim {
        claim: sentence.to_owned(),
        criterion: format!("the mean over masks keeps at least {:.0}% of the fine-tune's own headline at rate {rate}", 100.0 * KEPT),
        holds,
        opposite: 0,
        cases: points.len(),
        tested: false,
        numbers: listed(points.iter().map(|point| format!("{}: {:.1}% kept", name(point), 100.0 * point.relative))),
    })
}

/// DARE is better than another operation at a rate.
fn better_than(
    on: &dyn Fn(usize, usize) -> String,
    findings: &Findings,
    other: Operation,
    sentence: &str,
    rate: f64,
    lower: &dyn Fn(usize) -> bool,
) -> Option<Claim> {
    let compared: Vec<_> = findings.comparisons.iter().filter(|one| one.other == other && is(one.rate, rate)).collect();
    let count = |verdict: Verdict| compared.iter().filter(|one| one.effect.verdict(lower(one.task)) == verdict).count();
    (!compared.is_empty()).then(|| Claim {
        claim: sentence.to_owned(),
        criterion: format!("DARE's headline is better at rate {rate}, significantly after Holm's correction"),
        holds: count(Verdict::Better),
        opposite: count(Verdict::Worse),
        cases: compared.len(),
        tested: true,
        numbers: listed(compared.iter().map(|one| format!("{}: {}", on(one.model, one.task), in_words(&one.effect)))),
    })
}

/// Dropped weights collapse even at a low rate.
fn collapses(findings: &Findings, name: &dyn Fn(&SinglePoint) -> String) -> Option<Claim> {
    let rate = lowest_rate(findings, Operation::OfWeights)?;
    let at = |point: &&SinglePoint| point.operation == Some(Operation::OfWeights) && is(point.rate, rate);
    let points: Vec<&SinglePoint> = findings.points.iter().filter(at).collect();
    Some(Claim {
        claim: "When fine-tuned weights are dropped instead of deltas, scores collapse even at low rates.".to_owned(),
        criterion: format!("the mean over masks keeps less than half of the fine-tune's own headline at rate {rate}, the lowest here"),
        holds: points.iter().filter(|point| point.relative < 0.5).count(),
        opposite: 0,
        cases: points.len(),
        tested: false,
        numbers: listed(points.iter().map(|point| format!("{}: {:.1}% kept", name(point), 100.0 * point.relative))),
    })
}

/// DARE before a method makes merges better.
fn merging(findings: &Findings) -> Option<Claim> {
    let effects: Vec<&Effect> = findings.merges.iter().flat_map(|finding| &finding.with_dare).map(|with_dare| &with_dare.effect).collect();
    let count = |verdict: Verdict| effects.iter().filter(|effect| effect.verdict(false) == verdict).count();
    let (better, worse) = (count(Verdict::Better), count(Verdict::Worse));
    let larger = effects.iter().filter(|effect| effect.difference > 0.0).count();
    (!effects.is_empty()).then(|| Claim {
        claim: "DARE before a merge method makes the merge better.".to_owned(),
        criterion: "the score with DARE is higher than at the same point without, significantly after Holm's correction".to_owned(),
        holds: better,
        opposite: worse,
        cases: effects.len(),
        tested: true,
        numbers: format!(
            "of {} comparisons (sets, methods, rates) the score is higher in {larger}; significantly higher in {better}, lower in {worse}",
            effects.len()
        ),
    })
}

fn lowest_rate(findings: &Findings, operation: Operation) -> Option<f64> {
    let rates = findings.points.iter().filter(|point| point.operation == Some(operation)).map(|point| point.rate);
    rates.min_by(f64::total_cmp)
}

fn is(rate: f64, other: f64) -> bool {
    (rate - other).abs() < 1e-9
}

/// `+0.0123 ± 0.0045, p 0.013`.
fn in_words(effect: &Effect) -> String {
    let error = effect.stderr.map_or(String::new(), |error| format!(" \u{b1} {error:.4}"));
    let p = effect.adjusted.map_or(String::new(), |p| format!(", p {}", p_in_words(p)));
    format!("{:+.4}{error}{p}", effect.difference)
}

fn listed(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join("; ")
}
