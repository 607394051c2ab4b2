"""Recorded expectations for deltaic-eval's extraction rules (evaluation.md 2 to 5), by Python's own `re`, `str`, `int`, `float`, `Fraction` and
`round`, and by lm-evaluation-harness's filters and metric, over generated nasty texts.

    python tests/python/extraction.py > crates/eval/tests/data/extraction.json

A rule that raises where evaluation.md says "no answer" gives null.
"""
import json
import random
import re
import sys
from fractions import Fraction

from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter
from lm_eval.models.utils import postprocess_generated_text

RANDOM = random.Random(11)
MARK = "The answer is: "


def gsm8k(completion):
    """Section 2.1, steps 1 to 5."""
    pieces = completion.split(MARK)
    if len(pieces) == 1:
        return None
    match = re.search(r"[\-+]?\d*[\.,/]?\d+", pieces[-1].strip(), re.ASCII)
    if match is None:
        return None
    text = match.group()
    try:
        if "/" in text:
            numerator, denominator = text.split("/")
            float(numerator), float(denominator)
            if denominator == "0":
                return round(float(numerator))
            exact = Fraction(int(numerator), int(denominator))
            return round(float(exact.numerator / exact.denominator))
        return round(float(text.replace(",", "")))
    except (ValueError, OverflowError, ZeroDivisionError):
        return None


def math_gold(solution):
    start = solution.rfind("\\boxed")
    start = solution.rfind("\\fbox") if start < 0 else start
    depth = 0
    for at in range(start, len(solution)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(solution[at], 0)
        if solution[at] == "}" and depth == 0:
            piece = solution[start:at + 1]
            return piece[len("\\boxed{"):-1] if piece.startswith("\\boxed{") else None
    return None


def math_answer(completion):
    pieces = completion.split(MARK)
    if len(pieces) == 1:
        return None
    answer = pieces[-1].split(".\n")[0].strip()
    return (answer[:-1] if answer[-1:] == "." else answer).strip()


def math_normalised(text, hendrycks):
    """Section 3, steps 1 to 17; raises where the original does."""
    for old, new in [("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
                     ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", "")]:
        text = text.replace(old, new)
    if "\\text{ " in text:
        before, _ = text.split("\\text{ ")
        text = before
    text = text.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    text = "0" + text if text[0] == "." else text
    if text.count("=") == 1 and len(text.split("=")[0]) <= 2:
        text = text.split("=")[1]
    first, *rest = text.split("\\sqrt")
    text = first + "".join("\\sqrt" + (part if part[0] == "{" else "{" + part[0] + "}" + part[1:]) for part in rest)
    text = fractions(text.replace(" ", ""))
    text = "\\frac{1}{2}" if text == "0.5" else text
    if text.count("/") != 1:
        return text
    above, below = text.split("/")
    try:
        above, below = int(above), int(below)
    except ValueError:
        if hendrycks:
            return text
        raise
    return f"\\frac{{{above}}}{{{below}}}" if text == f"{above}/{below}" else text


def fractions(text):
    first, *rest = text.split("\\frac")
    result = first
    for part in rest:
        if part[0] == "{":
            result += "\\frac" + part
        elif len(part) < 2:
            return text
        elif part[1] == "{":
            result += "\\frac{" + part[0] + "}" + part[1:]
        else:
            result += "\\frac{" + part[0] + "}{" + part[1] + "}" + part[2:]
    return result


def tried(function, *arguments):
    try:
        return function(*arguments)
    except (IndexError, ValueError):
        return None


def cut(text, mark):
    return text[:text.index(mark)].strip() if mark in text else text


def code(output, mbpp):
    """Sections 4 and 5, steps 1 to 7."""
    text = output.split("### Response:")[-1].replace("\t", "    ")
    text = (text if mbpp else text.replace("\r", "")).strip()
    if "```python" in text:
        text = text[text.index("```python"):].strip().replace("```python", "")
        text = cut(text, "\n```" if mbpp else "```")
    if '__name__ == "__main__"' in text:
        text = cut(text, 'if __name__ == "__main__":')
    text = cut(text, "# Example usage")
    text = cut(text, "# Test examples") if mbpp else text
    for mark in ("The solution is:", "The answer is:"):
        if mark in text:
            text = text[text.index(mark):].strip().replace(mark, "")
            text = cut(text, "\n\nThe answer is:").strip()
    return text


FILTERS = {
    "strict": RegexFilter("#### (\\-?[0-9\\.\\,]+)"), "cot": RegexFilter("The answer is (\\-?[0-9\\.\\,]+)."),
    "flexible": RegexFilter("(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1), "no_group": RegexFilter("[a-z]+", group_select=-1),
    "may_be_empty": RegexFilter("#(x?)"), "both_empty": RegexFilter("#(x?)(y?)"),
}


def joined(pieces, most):
    return "".join(RANDOM.choice(pieces) for _ in range(RANDOM.randint(0, most)))


def number_texts():
    pieces = ["The answer is: ", "The answer is ", "#### ", "-", "+", "$", ",", ".", "/", " ", "\n", "0", "1", "5", "12", "1,234", "007", "18.00",
              "2.5", "3.5", "x", "#", "\u00a0", "\x1c", "é", "9" * 25, "is", "y"]
    yield from (joined(pieces, 9) for _ in range(250))
    yield from (MARK + joined(pieces, 6) for _ in range(250))
    for text in ["1,234,567", "12.5", "13.5", "-12.5", "0.5", "1.5", "-0.4", ".5", ",5", "/5", "-/5", "5/0", "5/00", "0/0", "0/7", "7/2", "5/2", "-5/2", "+3/6",
                 "1e5", "10.", "5.5.5", "1/2/3", "٣", "9" * 309, "9" * 308, "1" * 400 + "/" + "3" * 399, "3" * 60 + "/" + "6" * 60, "3" * 25 + "/" + "6" * 24,
                 "5" + "0" * 40 + "/1" + "0" * 41, "15" + "0" * 40 + "/1" + "0" * 41, "9" * 400 + "/2", "1/" + "9" * 400, "9007199254740993/2",
                 "36028797018963973/8", "9007199254740993", "1" * 4301 + "/" + "1" * 4301]:
        yield MARK + text


def math_texts():
    pieces = ["\\frac", "\\dfrac", "\\tfrac", "\\sqrt", "{", "}", "1", "2", "72", "x", "/", "-", "+", "=", "k = ", " ", ".", ".5", "\\text{ cm}", "\\text{m}", "\\left(",
              "\\right)", "\\!", "\\\\", "\\", "^\\circ", "^{\\circ}", "\\$", "\\%", "%", "0.5", "1/2", "\n", ".\n", "\\boxed{", "\\boxed", "\\fbox{", "é", "_", "٣", "\t", "\\pi", "0"]
    yield from (joined(pieces, 7) for _ in range(500))
    yield from (joined(["\\frac", "\\sqrt", "1", "{", "}", "2"], 5) for _ in range(100))
    yield from (joined(["1", "2", "0", "/", "-", "+", "_", "x", " "], 6) for _ in range(150))


def code_texts():
    pieces = ["```python", "```", "\n```", "\n", "\t", "    ", "\r", " ", "def f(x):\n    return x", "if __name__ == \"__main__\":", "__name__ == \"__main__\"", "# Example usage",
              "# Test examples", "The solution is:", "The answer is:", "\n\nThe answer is:", "### Response:", "print(1)", "é", "\x1f"]
    yield from (joined(pieces, 9) for _ in range(500))


def stop_texts():
    stops = [["Question:", "</s>", "<|im_end|>"], ["Instruction:", "Instruction", "Response:", "Response"], ["ab", "ba", ""], ["bab", "ab"], ["\nclass", "\ndef", "\n#", "\nif", "\nprint"], []]
    pieces = ["a", "b", "Question:", "Instruction", ":", "Response", "</s>", "\n", "class", "def", "#", "if", "é"]
    yield from ((joined(pieces, 8), RANDOM.choice(stops)) for _ in range(200))


def main():
    golds = ["18", "#### 18", "so 5\n#### 1,234", "$18.", "x #### y #### 7", "ABC é", "", "18.00", "-3", "[invalid]"]
    ignored = [",", "\\$", "(?s).*#### ", "\\.$"]
    numbers = list(dict.fromkeys(number_texts()))
    math_cases = list(dict.fromkeys(math_texts()))
    matches = []
    for text in numbers[:200] + ["ÀÉ", "Σας", "ΟΔΟΣ", "18.", "18..", "$1,000.00", "a #### 18"]:
        gold = RANDOM.choice(golds)
        # NumPy's texts lose NULs at their end, and Python's `$` also matches before a last line end: both are left out.
        if "\0" not in text and not text.endswith("\n"):
            score = exact_match_hf_evaluate([text], [gold], regexes_to_ignore=ignored, ignore_case=True)
            matches.append([text, gold, bool(score["exact_match"] == 1.0)])
            matches.append([gold, gold.upper() + ".", bool(exact_match_hf_evaluate([gold], [gold.upper() + "."], ignored, True)["exact_match"] == 1.0)])
    json.dump({
        "gsm8k": [[text, (lambda answer: None if answer is None else float(answer))(gsm8k(text))] for text in numbers],
        "filters": [[text, {name: filter_.apply([[text]], [{}])[0][0] for name, filter_ in FILTERS.items()}] for text in numbers],
        "exact_match": matches,
        "math_gold": [[text, math_gold(text)] for text in math_cases],
        "math_answer": [[MARK + text, math_answer(MARK + text)] for text in math_cases[:200]] + [[text, math_answer(text)] for text in math_cases[:20]],
        "math_normalised": [[text, tried(math_normalised, text, False), tried(math_normalised, text, True)] for text in math_cases],
        "code": [[text, code(text, False), code(text, True)] for text in dict.fromkeys(code_texts())],
        "stops": [[text, stops, postprocess_generated_text(text, stops, None)] for text, stops in stop_texts()],
    }, sys.stdout, ensure_ascii=False, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
