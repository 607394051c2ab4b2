"""What transformers makes of the chat templates in crates/lm/tests/chat_templates, for crates/lm/tests/chat_templates.rs.

    python tests/python/chat_templates.py        # writes expected.json there; needs transformers and jinja2

A case is a template, the special tokens, a conversation, and the text, or the beginning of the error that the template raises.
"""
import json
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

FOLDER = Path(__file__).parents[2] / "crates/lm/tests/chat_templates"
SPECIAL = {
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "gemma": {"bos_token": "<bos>", "eos_token": "<eos>"},
    "phi3": {"bos_token": "<s>", "eos_token": "<|endoftext|>"},
    "chatml": {},
}
CONVERSATIONS = [
    [("user", "Hello!")],
    [("system", "  You are terse.\n"), ("user", "What is 2 + 2? \n")],
    [("user", " How are you?"), ("assistant", "Fine, <b>thanks</b> & \"you\"? \n"), ("user", "Schön, 很好 🙂\n\nbye")],
    [("system", "Be kind."), ("user", "Hi"), ("assistant", "<think>\nhm\n</think>\n\nHello."), ("user", "Why?"), ("assistant", "Because.")],
    [("assistant", "I begin."), ("user", "No.")],
    [("user", "")],
]


def main():
    cases = []
    for path in sorted(FOLDER.glob("*.jinja")):
        template = path.read_text()
        # The date is passed in where the template takes one; strftime_now itself is tested without a recording.
        special = SPECIAL.get(path.stem, {"bos_token": "<s>", "eos_token": "</s>"})
        if path.stem == "llama3.2":
            special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "date_string": "26 Jul 2024"}
        for conversation in CONVERSATIONS:
            for prompt in (False, True):
                messages = [{"role": role, "content": content} for role, content in conversation]
                case = {"template": path.stem, "special": special, "messages": messages, "add_generation_prompt": prompt}
                try:
                    rendered = render_jinja_template([messages], chat_template=template, add_generation_prompt=prompt, **special)
                    case["text"] = rendered[0][0]
                except jinja2.exceptions.TemplateError as error:
                    case["error"] = str(error)
                cases.append(case)
    (FOLDER / "expected.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")
    print(len(cases), "cases,", sum("error" in case for case in cases), "errors")


main()
