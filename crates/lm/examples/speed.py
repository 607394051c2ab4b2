"""What `speed.rs` measures, with transformers: python speed.py MODEL [ROUNDS] (torch, transformers; set OMP_NUM_THREADS)."""
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


if __name__ == "__main__":
    path, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with torch.inference_mode():
        causal = any("CausalLM" in name for name in AutoConfig.from_pretrained(path).architectures)
        (decoder if causal else encoder)(path, rounds)
