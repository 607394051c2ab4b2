//! The few functions of Python's `str` and `int` that differ from Rust's.

/// White space of `str.strip()`, `str.split()` and `\s` of `re`: Unicode's, and ASCII's four separators.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// What `int(text)` does with a text, and whether `str` of it is the same text again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Integer {
    /// `int` raises a `ValueError`.
    Not,
    /// It is an integer that prints as something else, such as `+1`, `007`, `1_000`.
    SpeltOtherwise,
    /// It prints as it stands.
    AsPrinted,
}

/// `int(text)`: white space around it, a sign, decimal digits of any script, single underscores between digits. (Python 3.11 and later refuse more
/// than 4,300 digits; the authors' version did not.)
pub(super) fn integer(text: &str) -> Integer {
    let stripped = strip(text);
    let digits = stripped.strip_prefix(['+', '-']).unwrap_or(stripped);
    let groups_are_digits = digits.split('_').all(|group| !group.is_empty() && group.chars().all(is_decimal));
    if !groups_are_digits {
        return Integer::Not;
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let printed = text == "0" || (!unsigned.starts_with('0') && unsigned.bytes().all(|byte| byte.is_ascii_digit()));
    if printed { Integer::AsPrinted } else { Integer::SpeltOtherwise }
}

/// A decimal digit of any script (Unicode's `Nd`, Python's `\d`).
fn is_decimal(c: char) -> bool {
    use std::sync::LazyLock;
    static DECIMAL: LazyLock<Option<regex::Regex>> = LazyLock::new(|| regex::Regex::new(r"^\d$").ok());
    c.is_ascii_digit() || (!c.is_ascii() && DECIMAL.as_ref().is_some_and(|decimal| decimal.is_match(c.encode_utf8(&mut [0; 4]))))
}
