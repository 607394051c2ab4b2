//! Programs out of generated texts for HumanEval and MBPP, as the DARE paper's authors cut them (evaluation.md 4 and 5).

use super::python::strip;

/// Each tab is four spaces: the `all_code` of the authors' HumanEval file.
pub fn tabs_to_spaces(text: &str) -> String {
    text.replace('\t', "    ")
}

/// HumanEval's completion in a generated text.
pub fn humaneval(output: &str) -> String {
    let text = response(output).replace('\r', "");
    let text = fenced(strip(&text), "```");
    let text = before_examples(&text);
    answer_parts(text)
}

/// MBPP's program in a generated text: as [`humaneval`], but carriage returns stay, a closing fence stands at the beginning of a line, and
/// `# Test examples` ends the program, too.
pub fn mbpp(output: &str) -> String {
    let text = response(output);
    let text = fenced(strip(&text), "\n```");
    let text = before_examples(&text);
    let text = text.split_once("# Test examples").map_or(text, |(before, _)| strip(before));
    answer_parts(text)
}

/// What follows the last `### Response:`, with spaces for tabs.
fn response(output: &str) -> String {
    tabs_to_spaces(output.rsplit("### Response:").next().unwrap_or(output))
}

/// From the first opening fence to the next closing one, without any opening fences. Where none closes, the text keeps its white space.
fn fenced(text: &str, closing: &str) -> String {
    const OPENING: &str = "```python";
    let Some(start) = text.find(OPENING) else { return text.to_owned() };
    let text = strip(&text[start..]).replace(OPENING, "");
    match text.split_once(closing) {
        Some((before, _)) => strip(before).to_owned(),
        None => text,
    }
}

/// The text before the main block, and before example usage.
fn before_examples(text: &str) -> &str {
    // The authors look for the condition, then cut before the statement; where only the condition is there, nothing is cut.
    let text = text.split_once(r#"if __name__ == "__main__":"#).map_or(text, |(before, _)| strip(before));
    text.split_once("# Example usage").map_or(text, |(before, _)| strip(before))
}

/// What Code Alpaca writes after `The solution is:`, then after `The answer is:`.
fn answer_parts(text: &str) -> String {
    let text = after_mark(text, "The solution is:");
    after_mark(&text, "The answer is:")
}

/// From the first mark on, without any marks, up to an answer in a paragraph of its own.
fn after_mark(text: &str, mark: &str) -> String {
    let Some(start) = text.find(mark) else { return text.to_owned() };
    let text = strip(&text[start..]).replace(mark, "");
    let end = text.find("\n\nThe answer is:").unwrap_or(text.len());
    strip(&text[..end]).to_owned()
}
