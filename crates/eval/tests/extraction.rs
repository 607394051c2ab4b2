//! Extraction rules against Python's own `re` and `str` and lm-evaluation-harness, recorded by `tests/python/extraction.py`, and against the cases that
//! evaluation.md works out.

use std::time::Instant;

use deltaic_eval::extract::math::Variant;
use deltaic_eval::extract::{ExactMatch, INVALID, Pattern, Take, code, first_stop, gsm8k, math, python};
use deltaic_eval::task::{Score, built_in};
use proptest::prelude::*;
use serde_json::Value;

fn recorded(part: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("data/extraction.json")).unwrap();
    all[part].as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn gsm8k_answers_are_those_of_pythons_re_fraction_and_round() {
    for case in recorded("gsm8k") {
        assert_eq!(gsm8k::answer(text(&case[0])), case[1].as_f64(), "{case}");
    }
}

#[test]
fn gsm8k_keeps_what_the_paper_s_protocol_does_to_separators_halves_and_fractions() {
    for (completion, expected) in [
        ("so The answer is: 18", Some(18.0)),
        ("The answer is: 1. No. The answer is: $2", Some(2.0)),
        ("The answer is: 1,234,567", Some(1234.0)),
        ("The answer is: 12.5", Some(12.0)),
        ("The answer is: 13.5", Some(14.0)),
        ("The answer is: -7/2", Some(-4.0)),
        ("The answer is: 5/0", Some(5.0)),
        ("The answer is: 5/00", None),
        ("The answer is: /5", None),
        ("The answer is: five", None),
        ("The answer is:18", None),
        ("#### 18", None),
    ] {
        assert_eq!(gsm8k::answer(completion), expected, "{completion}");
    }
}

#[test]
fn gsm8k_gold_is_the_integer_after_the_mark_and_anything_else_an_error() {
    assert_eq!(gsm8k::gold("9 * 2 = <<9*2=18>>18\n#### 18").unwrap(), 18.0);
    assert_eq!(gsm8k::gold("#### -1,080 ").unwrap(), -1080.0);
    for bad in ["18", "####18", "#### eighteen", "#### 1.5", ""] {
        assert!(gsm8k::gold(bad).unwrap_err().message().contains("expected `#### ` and an integer"), "{bad}");
    }
}

/// A score of the built-in task `gsm8k_fewshot`, as its file has it.
fn gsm8k_score(metric: &str) -> Score {
    let task = built_in("gsm8k_fewshot").unwrap().unwrap();
    task.generation.unwrap().scores.into_iter().find(|score| score.metric == metric).unwrap()
}

fn gsm8k_pattern(metric: &str) -> Pattern {
    let score = gsm8k_score(metric);
    Pattern::new(&score.regex.unwrap(), score.take, &score.missing).unwrap()
}

fn gsm8k_match() -> ExactMatch {
    let score = gsm8k_score("strict_match");
    ExactMatch::new(&score.ignore, score.ignore_case).unwrap()
}

fn filters() -> [(&'static str, Pattern); 6] {
    [
        ("strict", gsm8k_pattern("strict_match")),
        ("cot", Pattern::new(r"The answer is (\-?[0-9\.\,]+).", Take::First, INVALID).unwrap()),
        ("flexible", gsm8k_pattern("flexible_extract")),
        ("no_group", Pattern::new("[a-z]+", Take::Last, INVALID).unwrap()),
        ("may_be_empty", Pattern::new("#(x?)", Take::First, INVALID).unwrap()),
        ("both_empty", Pattern::new("#(x?)(y?)", Take::First, INVALID).unwrap()),
    ]
}

#[test]
fn patterns_find_what_the_harness_s_filters_find() {
    let filters = filters();
    for case in recorded("filters") {
        for (name, pattern) in &filters {
            assert_eq!(pattern.answer(text(&case[0])), text(&case[1][*name]), "{name} of {case}");
        }
    }
}

#[test]
fn exact_match_is_the_harness_s_with_its_deletions() {
    let rule = gsm8k_match();
    for case in recorded("exact_match") {
        assert_eq!(rule.is_match(text(&case[0]), text(&case[1])), case[2].as_bool().unwrap(), "{case}");
    }
    assert!(rule.is_match("$1,080.", "long solution #### 3 and\n#### 1080"));
    assert!(!rule.is_match("18.00", "#### 18"));
}

#[test]
fn a_pattern_that_is_none_is_an_error_that_shows_it() {
    let error = Pattern::new("(", Take::First, INVALID).unwrap_err();
    assert!(error.message().contains("the pattern `(`"), "{error}");
    assert!(ExactMatch::new(&["(?=x)"], false).is_err());
    assert!(Pattern::new("(a{1000}){1000}", Take::First, INVALID).is_err(), "a pattern that compiles to very much is refused");
}

#[test]
fn math_golds_and_answers_are_those_of_the_python_steps() {
    for case in recorded("math_gold") {
        assert_eq!(math::gold(text(&case[0])), case[1].as_str(), "{case}");
    }
    for case in recorded("math_answer") {
        assert_eq!(math::answer(text(&case[0])), case[1].as_str(), "{case}");
    }
}

#[test]
fn math_normalisation_is_that_of_the_python_steps_in_both_variants() {
    for case in recorded("math_normalised") {
        for (index, variant) in [(1, Variant::Authors), (2, Variant::Hendrycks)] {
            assert_eq!(math::normalised(text(&case[0]), variant).ok().as_deref(), case[index].as_str(), "{variant:?} of {case}");
        }
    }
}

#[test]
fn math_gold_is_the_last_box_in_braces() {
    for (solution, expected) in [
        (r"first \boxed{1}, then $\boxed{\frac{1}{2}}$.", Some(r"\frac{1}{2}")),
        (r"\boxed{}", Some("")),
        (r"\boxed 5", None),
        (r"\boxed 5 {x}", None),
        (r"\fbox{5}", None),
        (r"\boxed{1} \boxed{2", None),
        ("nothing", None),
    ] {
        assert_eq!(math::gold(solution), expected, "{solution}");
    }
}

#[test]
fn math_steps_are_taken_as_evaluation_md_says() {
    for (answer, expected) in [
        ("1\n2", "12"),
        (r"\!1\!", "1"),
        (r"\dfrac12", r"\frac{1}{2}"),
        (r"\tfrac1{72}", r"\frac{1}{72}"),
        (r"\left(1,2\right)", "(1,2)"),
        (r"90^{\circ}", "90"),
        (r"90^\circ", "90"),
        (r"\$5", "5"),
        (r"5\text{ cm}", "5"),
        (r"5\text{cm}", r"5\text{cm}"),
        (r"50\%", "50"),
        ("50%", "50%"),
        (".5", r"\frac{1}{2}"),
        ("0.5", r"\frac{1}{2}"),
        ("{.5}", "{0.5}"),
        ("1 .5", "10.5"),
        ("k=5", "5"),
        ("k =5", "5"),
        ("abc=5", "abc=5"),
        ("k=5=6", "k=5=6"),
        (r"\sqrt3", r"\sqrt{3}"),
        (r"\sqrt{3}", r"\sqrt{3}"),
        (r"1\frac2", r"1\frac2"),
        ("3/4", r"\frac{3}{4}"),
        ("-3/4", r"\frac{-3}{4}"),
        ("03/4", "03/4"),
        ("1/2/3", "1/2/3"),
        ("1,000", "1,000"),
        ("", ""),
    ] {
        assert_eq!(math::normalised(answer, Variant::Authors).as_deref(), Ok(expected), "{answer}");
    }
    for answer in [r"\sqrt", r"\frac", r"1\text{ m}2\text{ s}", "a/b"] {
        assert!(math::normalised(answer, Variant::Authors).is_err(), "{answer}");
    }
}

#[test]
fn math_compares_texts_as_they_stand_where_one_cannot_be_normalised() {
    // `x/2` has a side that is no integer: an error for the authors, so ` 3` and `3` would differ; Hendrycks' version goes on.
    assert!(!math::is_equivalent(Some("x /2"), Some("x/2"), Variant::Authors));
    assert!(math::is_equivalent(Some("x /2"), Some("x/2"), Variant::Hendrycks));
    assert!(math::is_equivalent(Some("x/2"), Some("x/2"), Variant::Authors));
    assert!(math::is_equivalent(None, None, Variant::Authors));
    assert!(!math::is_equivalent(None, Some(""), Variant::Authors));
    assert!(math::is_correct("The answer is: $x$? The answer is: 1/2.\nMore.", Some(r"\frac12"), Variant::Authors));
    assert!(!math::is_correct("It is 5", None, Variant::Authors), "invalid output is wrong even without gold");
}

#[test]
fn programs_are_cut_as_the_python_steps_cut_them() {
    for case in recorded("code") {
        assert_eq!(code::humaneval(text(&case[0])), text(&case[1]), "humaneval of {case}");
        assert_eq!(code::mbpp(text(&case[0])), text(&case[2]), "mbpp of {case}");
    }
}

#[test]
fn a_usual_answer_with_a_fence_and_an_example_becomes_its_program() {
    let output = "Here is the code:\r\n```python\ndef f(x):\n\treturn x # ```\n```\nThis works.";
    assert_eq!(code::humaneval(output), "def f(x):\n    return x #");
    assert_eq!(code::mbpp(output), "def f(x):\n    return x # ```");
    let output = "def f(x):\n\treturn x\n\n# Test examples\nassert f(1)\nif __name__ == \"__main__\":\n\tf(1)";
    assert_eq!(code::mbpp(output), "def f(x):\n    return x");
    assert_eq!(code::humaneval("The solution is: x = 1\n\nThe answer is: 1"), "x = 1");
    assert_eq!(code::tabs_to_spaces("\ta"), "    a");
}

#[test]
fn the_stop_string_that_comes_first_ends_a_text() {
    for case in recorded("stops") {
        let stops: Vec<&str> = case[1].as_array().unwrap().iter().map(text).collect();
        let whole = text(&case[0]);
        assert_eq!(&whole[..first_stop(whole, &stops).unwrap_or(whole.len())], text(&case[2]), "{case}");
    }
    assert_eq!(first_stop("xaby", &["by", "ab"]), Some(1));
    assert_eq!(first_stop("a\n\nInstruction: b", &["Instruction:", "Instruction", "", "\n\n"]), Some(1));
    assert_eq!(first_stop("none", &["", "z"]), None);
}

#[test]
fn white_space_is_pythons() {
    assert_eq!(python::strip("\u{1c}\u{a0}\u{2029} a \u{200b}\u{85}"), "a \u{200b}");
}

thread_local! {
    /// Compiled once: property tests ask for them many times.
    static PATTERNS: ([(&'static str, Pattern); 6], ExactMatch) = (filters(), gsm8k_match());
}

/// All rules on one text.
fn every_rule(text: &str) {
    let marked = format!("The answer is: {text}");
    let _ = (gsm8k::answer(&marked), gsm8k::gold(text), gsm8k::gold(&format!("#### {text}")));
    let _ = (math::gold(text), math::answer(&marked), code::humaneval(text), code::mbpp(text));
    for variant in [Variant::Authors, Variant::Hendrycks] {
        let _ = math::is_correct(&marked, Some(text), variant);
    }
    PATTERNS.with(|(patterns, exact)| {
        patterns.iter().for_each(|(_, pattern)| assert!(pattern.answer(text).len() <= text.len().max(INVALID.len())));
        exact.is_match(text, &marked);
    });
    let _ = first_stop(text, &["a", "ab"]);
}

#[test]
fn a_megabyte_of_what_the_rules_look_for_takes_linear_time() {
    let pieces = [
        "1",
        "-",
        ",",
        "1,",
        "/",
        "#### ",
        "####",
        "\\frac",
        "\\frac1",
        "\\sqrt",
        "\\sqrt1",
        "{",
        "}",
        "\\boxed{",
        "\\boxed",
        "```python",
        "```",
        "\n```",
        " ",
        "\n",
        "\u{a0}",
        "=",
        "The answer is: ",
        "The solution is:",
        "\n\nThe answer is:",
        "### Response:",
        "# Example usage",
        "\t",
        "é",
        "_",
        "$",
        ".",
        "\\text{ ",
    ];
    for piece in pieces {
        let text = piece.repeat((1 << 20) / piece.len());
        let start = Instant::now();
        every_rule(&text);
        // A quadratic rule takes minutes; the tests' machines are slow and shared.
        assert!(start.elapsed().as_secs() < 20, "{piece:?} took {:?}", start.elapsed());
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_rule_panic(text in any::<String>()) {
        every_rule(&text);
    }

    #[test]
    fn no_text_of_what_the_rules_look_for_makes_one_panic(
        text in r"(\\frac|\\sqrt|\\boxed|\\text\{ |[-+/,.=_{}01é٣ \n\t\r]|The answer is: |#### |```python|```|### Response:){0,12}"
    ) {
        every_rule(&text);
    }

    #[test]
    fn what_is_not_normalised_equals_itself_all_the_same(text in any::<String>()) {
        prop_assert!(math::is_equivalent(Some(&text), Some(&text), Variant::Authors));
    }
}
