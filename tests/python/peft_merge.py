#!/usr/bin/env python3
"""Merges a PEFT adapter into its base by PEFT itself: OUT/bfloat16 and OUT/float32, each loaded, merged and saved in that dtype.

    peft_merge.py BASE ADAPTER OUT

PEFT computes the product of an f32 adapter in f32, adds it in f32 and rounds once to the dtype. Needs torch, transformers, peft; ends
with 77 without them.
"""
import argparse
import pathlib
import sys

try:
    import peft
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}", file=sys.stderr)
    sys.exit(77)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "adapter", "out"):
        parser.add_argument(name, type=pathlib.Path, metavar=name.upper())
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    model_class = getattr(transformers, transformers.AutoConfig.from_pretrained(args.base).architectures[0])
    for dtype in (torch.bfloat16, torch.float32):
        model = model_class.from_pretrained(args.base, dtype=dtype)
        merged = peft.PeftModel.from_pretrained(model, args.adapter).merge_and_unload()
        folder = args.out / str(dtype).removeprefix("torch.")
        merged.save_pretrained(folder)
        print(folder)


if __name__ == "__main__":
    main()
