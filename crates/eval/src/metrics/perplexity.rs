//! What perplexities are counted over (evaluation.md 7.2).

use crate::extract::python::is_space;

/// The words of a page as lm-evaluation-harness counts them: Python's `len(re.split(r"\s+", page))`, the pieces between runs of white space,
/// of which those at the edges may be empty. Bytes are `page.len()`.
pub fn word_count(page: &str) -> usize {
    let mut in_space = false;
    let runs = page.chars().filter(|&c| {
        let starts = is_space(c) && !in_space;
        in_space = is_space(c);
        starts
    });
    runs.count() + 1
}
