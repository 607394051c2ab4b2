#!/usr/bin/env python3
"""What transformers' AutoTokenizer makes of texts with the tokenizers of model folders.

    tokenize_folders.py FOLDER...

For each folder and text a line of JSON on stdout: folder, text, `ids` with special tokens, `plain` without, `decoded` from `plain`; with `pair` and
`max_tokens` the ids and type ids of a pair cut "longest first". Needs transformers; ends with 77 without it.
"""
import json
import pathlib
import sys

try:
    from transformers import AutoTokenizer
except ImportError as missing:
    print(f"skipped: {missing}", file=sys.stderr)
    sys.exit(77)

TEXTS = ["", " ", "Hello world", "  two  spaces  ", "line\n\nfeeds\tand\r\ntabs", "naïve Straße É e\u0301 ﬁ", "世界 Привет مرحبا", "🙂 👩‍👩‍👧 \U0001f9ff", "3.14159 1234567",
         "<|im_start|>user\nHi<|im_end|>\n", "[CLS] a [SEP] [MASK] <s></s>", "def f(x):\n    return x**2  # é\n", "It's DON'T we've", "\u200b\u00a0\u3000", "\x00\x7f\ufffd", "x" * 300]
PAIRS = [("Hello world again", "the river", 64), ("a b c d e f g h", "super", 9), ("super", "a b c d e f g h", 9), ("a b c d e f g h", "i j k l m n o p", 10), ("", "", 8)]

for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(pathlib.Path(folder))
    for text in TEXTS:
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        decoded = tokenizer.decode(plain, clean_up_tokenization_spaces=False)
        print(json.dumps({"folder": folder, "text": text, "ids": tokenizer(text)["input_ids"], "plain": plain, "decoded": decoded}))
    for text, pair, length in PAIRS:
        encoded = tokenizer(text, pair, truncation=True, max_length=length, return_token_type_ids=True)
        print(json.dumps({"folder": folder, "text": text, "pair": pair, "max_tokens": length, "ids": encoded["input_ids"], "type_ids": encoded["token_type_ids"]}))
