#!/usr/bin/env python3
"""Makes the small models of the tests: a base and two fine-tunes of it. Needs NumPy; the same bytes in every run.

    python3 tests/models/make.py

Llama architecture with random weights, so the models say nothing sensible (those of examples/quickstart do); what is real is the shape
of the thing: the fine-tunes differ from the base by small deltas with heavy tails, stored in bfloat16.
"""
import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))
import checkpoint  # noqa: E402

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, VOCABULARY = 32, 64, 2, 4, 2, 64
DELTA = 0.001  # scale of Student's t with 3 degrees of freedom: a standard deviation of about 0.0017
WORDS = """the a of to and in is it for on that with as was at by an be this from or not are but had one two three add
multiply divide plus minus equals number sum return print if else while def list string loop code write read question
answer yes no""".split()

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
    "head_dim": HIDDEN // HEADS, "hidden_act": "silu", "hidden_size": HIDDEN, "initializer_range": 0.02,
    "intermediate_size": INTERMEDIATE, "max_position_embeddings": 256, "mlp_bias": False, "model_type": "llama",
    "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "num_key_value_heads": KV_HEADS, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": VOCABULARY,
}


def shapes():
    """{tensor name: shape}, matrices as [out, in]."""
    key_value = HIDDEN // HEADS * KV_HEADS
    names = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        names |= {
            prefix + "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            prefix + "self_attn.k_proj.weight": (key_value, HIDDEN),
            prefix + "self_attn.v_proj.weight": (key_value, HIDDEN),
            prefix + "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            prefix + "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            prefix + "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            prefix + "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
            prefix + "input_layernorm.weight": (HIDDEN,),
            prefix + "post_attention_layernorm.weight": (HIDDEN,),
        }
    return names


def base_weights(random):
    """float32 {name: array}: matrices normal with standard deviation 0.05, norms around 1."""
    return {name: 1.0 + 0.02 * random.standard_normal(shape) if len(shape) == 1 else 0.05 * random.standard_normal(shape)
            for name, shape in shapes().items()}


def tokenizer():
    """A word-level tokenizer as tokenizer.json: three special tokens, the words, and fillers up to the vocabulary's size."""
    special = ["<unk>", "<s>", "</s>"]
    tokens = special + WORDS
    tokens += [f"<extra_{i}>" for i in range(VOCABULARY - len(tokens))]
    added = [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, token in enumerate(special)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {token: i for i, token in enumerate(tokens)}, "unk_token": "<unk>"},
    }


def write_model(name, weights):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    files = {
        "config.json": CONFIG,
        "generation_config.json": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2},
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 256,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    }
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content, indent=2) + "\n")
    checkpoint.write_file(folder / "model.safetensors", {name: checkpoint.from_f32("BF16", array) for name, array in weights.items()})


def main():
    base = base_weights(np.random.default_rng(1))
    write_model("base", base)
    for seed, name in ((2, "fine-tune-a"), (3, "fine-tune-b")):
        random = np.random.default_rng(seed)
        write_model(name, {tensor: array + DELTA * random.standard_t(3, array.shape) for tensor, array in base.items()})


if __name__ == "__main__":
    main()
