"""What `speed.rs` measures, with transformers (torch, transformers; set OMP_NUM_THREADS).

    python speed.py MODEL [ROUNDS]
    python speed.py MODEL --beside target/release/examples/speed ROUNDS

The second runs both programs in turn, so that what else the machine does meets both, and prints each one's median over the rounds and their ratio.
"""
import re
import statistics
import subprocess
import sys
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification


def best(rounds, units, run):
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return units / min(seconds)


def tokens(count, seed):
    return [(index * 7919 + seed * 104729) % 20000 + 100 for index in range(count)]


def decoder(path, rounds):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    prompt = torch.tensor([tokens(512, 1)])
    print(f"prefill of 512 tokens: {best(rounds, 512, lambda: model.model(prompt, use_cache=False)):.1f} tokens/s")
    for rows in (1, 8):
        prompts = torch.tensor([tokens(32, row) for row in range(rows)])

        def write():
            mask = torch.ones_like(prompts)
            model.generate(prompts, attention_mask=mask, do_sample=False, min_new_tokens=65, max_new_tokens=65, pad_token_id=0)

        print(f"decode, {rows} at once (with a prompt of 32): {best(rounds, rows * 64, write):.1f} tokens/s")


def encoder(path, rounds):
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    rows = sorted((tokens(8 + index * 37 % 57, index) for index in range(256)), key=len, reverse=True)

    def classify():
        start = 0
        while start < len(rows):
            count = max(1, 2048 // len(rows[start]))
            batch = rows[start : start + count]
            width = len(batch[0])
            ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch])
            model(input_ids=ids, attention_mask=mask)
            start += count

    print(f"classification: {best(rounds, len(rows), classify):.1f} items/s")


def beside(path, binary, rounds):
    """Both programs in turn, each once a round; the first round warms the disk's cache and does not count."""
    programs = {"transformers": [sys.executable, __file__, path, "1"], "deltaic": [binary, path, "1"]}
    figures = {}
    for number in range(rounds + 1):
        for name, command in programs.items():
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for line in said.splitlines():
                match = re.fullmatch(r"(.*): ([0-9.]+) (\S+)", line)
                if match and number > 0:
                    figures.setdefault((match[1], match[3]), {}).setdefault(name, []).append(float(match[2]))
    for (what, unit), found in figures.items():
        medians = {name: statistics.median(found[name]) for name in programs}
        ratio = medians["deltaic"] / medians["transformers"]
        shown = ", ".join(f"{name} {median:.1f}" for name, median in medians.items())
        print(f"{what}: {shown} {unit}; ratio {ratio:.2f} (medians of {rounds})")


if __name__ == "__main__":
    if "--beside" in sys.argv:
        model, _, binary, rounds = sys.argv[1:]
        beside(model, binary, int(rounds))
        sys.exit()
    path, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with torch.inference_mode():
        causal = any("CausalLM" in name for name in AutoConfig.from_pretrained(path).architectures)
        (decoder if causal else encoder)(path, rounds)
