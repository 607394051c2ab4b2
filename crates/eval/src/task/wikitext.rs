//! WikiText: its pages, and its text as it was before it was split into words.

use std::sync::LazyLock;

use regex::Regex;

/// The pages of the raw file: each from its title (a line ` = Title = `) to the next one's; what stands before the first is dropped.
pub fn pages(text: &str) -> Vec<String> {
    let is_title = |line: &str| {
        let inner = line.trim().strip_prefix("= ").and_then(|line| line.strip_suffix(" ="));
        inner.is_some_and(|inner| !inner.starts_with('=') && !inner.ends_with('='))
    };
    let mut pages: Vec<String> = Vec::new();
    for line in text.split_inclusive('\n') {
        if is_title(line) {
            pages.push(String::new());
        }
        if let Some(page) = pages.last_mut() {
            page.push_str(line);
        }
    }
    pages
}

/// Brackets and quotes whose inner white space goes, each with what it becomes.
static INNER_SPACE: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let pairs = [
        (r"\(\s*([^\)]*?)\s*\)", "($1)"),
        (r"\[\s*([^\]]*?)\s*\]", "[$1]"),
        (r"\{\s*([^}]*?)\s*\}", "{$1}"),
        (r#""\s*([^"]*?)\s*""#, "\"$1\""),
        (r"'\s*([^']*?)\s*'", "'$1'"),
    ];
    pairs.into_iter().filter_map(|(pattern, with)| Some((Regex::new(pattern).ok()?, with))).collect()
});

/// The detokeniser of lm-evaluation-harness (evaluation.md 7.2), step by step.
pub fn detokenise(text: &str) -> String {
    let before = [
        ("s '", "s'"),
        (" @-@ ", "-"),
        (" @,@ ", ","),
        (" @.@ ", "."),
        (" : ", ": "),
        (" ; ", "; "),
        (" . ", ". "),
        (" ! ", "! "),
        (" ? ", "? "),
        (" , ", ", "),
    ];
    let after =
        [("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" ° ", "°"), (" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s")];
    let mut text = before.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    for (pattern, with) in INNER_SPACE.iter() {
        text = pattern.replace_all(&text, *with).into_owned();
    }
    after.iter().fold(text, |text, (from, to)| text.replace(from, to))
}
