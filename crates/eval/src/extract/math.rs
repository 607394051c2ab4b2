//! MATH's answers and when two are the same (evaluation.md 3): the equivalence of Hendrycks et al. 2021, as the DARE paper's authors have it.

use super::THE_ANSWER_IS;
use super::python::{Integer, integer, strip};

/// Which version of the equivalence: they differ in `a/b` with a side that is no integer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Variant {
    /// It is an error, so that the texts are compared as they stand.
    #[default]
    Authors,
    /// It stays as it is.
    Hendrycks,
}

/// The text cannot be normalised; the original raises an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotNormalised;

/// The gold answer in a reference solution: what the braces of the last `\boxed{…}` hold. None for `\boxed 5`, and where no brace closes.
pub fn gold(solution: &str) -> Option<&str> {
    let start = solution.rfind(r"\boxed").or_else(|| solution.rfind(r"\fbox"))?;
    let boxed = &solution[start..];
    let mut open = 0_i64;
    for (at, byte) in boxed.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => continue,
        }
        // A closing brace brings the count to 0: an opening one can, too, after more closing ones than opening ones.
        if byte == b'}' && open == 0 {
            return boxed[..at].strip_prefix(r"\boxed{");
        }
    }
    None
}

/// The answer in a generated text: what follows the last `The answer is: `, up to a full stop at a line's end, without one last full stop. None where it
/// is not there ("invalid output", counted wrong).
pub fn answer(completion: &str) -> Option<&str> {
    let (_, after) = completion.rsplit_once(THE_ANSWER_IS)?;
    let sentence = strip(after.split(".\n").next().unwrap_or(after));
    Some(strip(sentence.strip_suffix('.').unwrap_or(sentence)))
}

/// Whether two answers are the same after [`normalised`]; where either cannot be normalised, whether they are the same as they stand. Two that are not
/// there are the same, one is not.
pub fn is_equivalent(first: Option<&str>, second: Option<&str>, variant: Variant) -> bool {
    let (Some(first), Some(second)) = (first, second) else { return first == second };
    match (normalised(first, variant), normalised(second, variant)) {
        (Ok(a), Ok(b)) => a == b,
        _ => first == second,
    }
}

/// Whether a generated text has the gold answer: extraction and equivalence.
pub fn is_correct(completion: &str, gold: Option<&str>, variant: Variant) -> bool {
    answer(completion).is_some_and(|answer| is_equivalent(Some(answer), gold, variant))
}

/// The form in which answers are compared.
///
/// # Errors
/// More than one unit, a `\sqrt` or `\frac` with nothing after it, and what the variant says.
pub fn normalised(answer: &str, variant: Variant) -> Result<String, NotNormalised> {
    let mut text = answer.replace('\n', "").replace(r"\!", "").replace(r"\\", r"\");
    for (from, to) in
        [("tfrac", "frac"), ("dfrac", "frac"), (r"\left", ""), (r"\right", ""), (r"^{\circ}", ""), (r"^\circ", ""), (r"\$", "")]
    {
        text = text.replace(from, to);
    }
    let text = without_unit(&text)?.replace(r"\%", "").replace(" .", " 0.").replace("{.", "{0.");
    if text.is_empty() {
        return Ok(text);
    }
    let text = if text.starts_with('.') { format!("0{text}") } else { text };
    let text = braced_roots(without_short_left_side(&text))?.replace(' ', "");
    let text = braced_fractions(text)?;
    let text = if text == "0.5" { r"\frac{1}{2}".to_owned() } else { text };
    slash_to_fraction(text, variant)
}

/// What stands before a unit, `\text{ cm}`; more than one is an error.
fn without_unit(text: &str) -> Result<&str, NotNormalised> {
    let mut parts = text.split(r"\text{ ");
    let before = parts.next().unwrap_or(text);
    if parts.nth(1).is_some() { Err(NotNormalised) } else { Ok(before) }
}

/// The right side of a text's only `=`, where the left one has at most two characters, such as `k `.
fn without_short_left_side(text: &str) -> &str {
    match text.split_once('=') {
        Some((left, right)) if !right.contains('=') && left.chars().count() <= 2 => right,
        _ => text,
    }
}

/// `\sqrt3` as `\sqrt{3}`.
fn braced_roots(text: &str) -> Result<String, NotNormalised> {
    let mut parts = text.split(r"\sqrt");
    let mut braced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        braced += r"\sqrt";
        let radicand = part.chars().next().ok_or(NotNormalised)?;
        if radicand == '{' {
            braced += part;
        } else {
            braced.extend(['{', radicand, '}']);
            braced += &part[radicand.len_utf8()..];
        }
    }
    Ok(braced)
}

/// `\frac12` as `\frac{1}{2}`, `\frac1{72}` as `\frac{1}{72}`. A single character after `\frac` leaves the whole text as it is.
fn braced_fractions(text: String) -> Result<String, NotNormalised> {
    let mut parts = text.split(r"\frac");
    let mut braced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        braced += r"\frac";
        let mut characters = part.chars();
        let numerator = characters.next().ok_or(NotNormalised)?;
        if numerator == '{' {
            braced += part;
            continue;
        }
        let Some(denominator) = characters.next() else { return Ok(text) };
        braced.extend(['{', numerator, '}']);
        match denominator {
            '{' => braced.push('{'),
            _ => braced.extend(['{', denominator, '}']),
        }
        braced += characters.as_str();
    }
    Ok(braced)
}

/// `1/2` as `\frac{1}{2}`, where both sides are integers spelt as they are printed.
fn slash_to_fraction(text: String, variant: Variant) -> Result<String, NotNormalised> {
    let Some((above, below)) = text.split_once('/').filter(|(_, below)| !below.contains('/')) else { return Ok(text) };
    match (integer(above), integer(below)) {
        (Integer::AsPrinted, Integer::AsPrinted) => Ok(format!(r"\frac{{{above}}}{{{below}}}")),
        (Integer::Not, _) | (_, Integer::Not) if variant == Variant::Authors => Err(NotNormalised),
        _ => Ok(text),
    }
}
