//! GSM8K as the DARE paper's authors score it (evaluation.md 2.1).

use std::sync::LazyLock;

use deltaic_checkpoint::{Error, Result, shorten};
use num_bigint::BigUint;
use num_traits::{ToPrimitive, Zero};
use regex::Regex;

use super::THE_ANSWER_IS;
use super::python::strip;

/// A number with at most one separator. The authors' `\d` also takes other scripts' digits; here they are none.
static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[\-+]?[0-9]*[.,/]?[0-9]+").ok());

/// Longest numerator or denominator in digits: what Python's `int` takes.
const MAX_DIGITS: usize = 4300;

/// The gold answer in a reference solution: what follows the first `#### `, without commas, as an integer.
///
/// # Errors
/// There is no `#### `, or no integer after it.
pub fn gold(solution: &str) -> Result<f64> {
    let after = solution.split("#### ").nth(1).map(|after| after.replace(',', ""));
    let number = after.as_deref().map(strip).and_then(|digits| digits.parse::<i64>().ok());
    number.map(|number| number as f64).ok_or_else(|| {
        Error::new(format!("{}: expected `#### ` and an integer at the end of a GSM8K answer", shorten(solution)))
            .help("is this GSM8K's data with the fields `question` and `answer`?")
    })
}

/// The answer in a generated text, a whole number; none where the text has none ("invalid output", counted wrong).
///
/// It is the first number after the last `The answer is: `. It has at most one separator, so `1,234,567` is 1234; a comma is deleted, a full stop is the
/// decimal point, a slash makes a fraction; what is not whole is rounded to the nearest integer, halves to the even one. A number too large for an
/// f64 is no answer, nor is a fraction over zero, unless its denominator is spelt `0`: then it is the numerator.
pub fn answer(completion: &str) -> Option<f64> {
    let (_, after) = completion.rsplit_once(THE_ANSWER_IS)?;
    let number = NUMBER.as_ref()?.find(strip(after))?.as_str();
    let value = match number.split_once('/') {
        Some((numerator, "0")) => decimal(numerator)?,
        Some((numerator, denominator)) => fraction(numerator, denominator)?,
        None => decimal(&number.replace(',', ""))?,
    };
    Some(value.round_ties_even())
}

/// Python's `float` of digits with at most one full stop; none where it is infinite or there is no digit.
fn decimal(number: &str) -> Option<f64> {
    number.parse().ok().filter(|value: &f64| value.is_finite())
}

/// The f64 nearest to an exact fraction of integers, the numerator perhaps with a sign.
fn fraction(numerator: &str, denominator: &str) -> Option<f64> {
    let digits = numerator.strip_prefix(['+', '-']).unwrap_or(numerator);
    if digits.len().max(denominator.len()) > MAX_DIGITS {
        return None;
    }
    let (above, below): (BigUint, BigUint) = (digits.parse().ok()?, denominator.parse().ok()?);
    if below.is_zero() {
        return None;
    }
    let quotient = nearest_quotient(above, &below)?;
    Some(if numerator.starts_with('-') { -quotient } else { quotient })
}

/// `above / below`, rounded once. What is below 2^-60 may be rounded twice, which ends as 0 all the same.
fn nearest_quotient(above: BigUint, below: &BigUint) -> Option<f64> {
    // So many bits more that the quotient has at least 64; whether anything is left over then decides only between a tie and no tie.
    let shift = (below.bits() + 64).saturating_sub(above.bits());
    let shifted = above << shift;
    let mut quotient = &shifted / below;
    if &quotient * below != shifted {
        quotient.set_bit(0, true);
    }
    let value = quotient.to_f64()? / libm::exp2(shift as f64);
    value.is_finite().then_some(value)
}
