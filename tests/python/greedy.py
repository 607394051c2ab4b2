"""Greedy generations of `deltaic eval` against transformers, by hand (not in `.ci/run`): the first 20 GSM8K test questions, 64 tokens, float32.

    python tests/python/greedy.py MODEL DELTAIC GSM8K_TEST.jsonl [ITEMS]

MODEL is the zoo's smollm2-135m-instruct. Where two texts differ, the gap between transformers' two best logits at the first different token is printed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
TOKENS = 64
TASK = f"""task: greedy
description: greedy generations
headline: accuracy
data:
  files: [questions.jsonl]
generation:
  prompt: "{{{{ question }}}}"
  chat: true
  system: {SYSTEM}
  max_new_tokens: {TOKENS}
  answer: "none"
  scores:
    - {{metric: accuracy}}
"""


def of_deltaic(model, binary, data, items):
    with tempfile.TemporaryDirectory() as scratch:
        task, records = Path(scratch) / "greedy.yml", Path(scratch) / "records.jsonl"
        task.write_text(TASK, encoding="utf-8")
        command = [binary, "eval", model, "--task", task, "--data", data, "--items", f"0..{items}", "--records", records, "--quiet"]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE)
        return [json.loads(line)["answer"] for line in records.read_text(encoding="utf-8").splitlines()]


def main(folder, binary, data, items):
    ours = of_deltaic(folder, binary, data, items)
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    equal = 0
    for number, (line, answer) in enumerate(zip(Path(data).read_text(encoding="utf-8").splitlines(), ours)):
        prompt = (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{json.loads(line)['question']}<|im_end|>\n<|im_start|>assistant\n"
        )
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS, return_dict_in_generate=True, output_logits=True
            )
        tokens = out.sequences[0, ids.shape[1] :]
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        mine = answer["text"] if isinstance(answer, dict) else answer
        if text == mine:
            equal += 1
            continue
        common = next((i for i in range(len(tokens)) if not mine.startswith(tokenizer.decode(tokens[: i + 1], skip_special_tokens=True))), len(tokens) - 1)
        best = torch.topk(out.logits[common][0], 2).values
        print(f"item {number}: different from token {common}; the two best logits lie {best[0] - best[1]:.2e} apart\n  {text!r}\n  {mine!r}")
    print(f"{equal} of {len(ours)} equal")
    sys.exit(equal < 0.9 * len(ours))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 20)
