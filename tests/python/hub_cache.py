#!/usr/bin/env python3
"""Lays out a Hugging Face Hub cache with small random models under the Hub names of tests/recipes/published. Needs NumPy.

    hub_cache.py OUT        # then HF_HUB_CACHE=OUT deltaic merge tests/recipes/published/NAME.yml DIR

As the real cache: models--ORG--NAME/refs/main holds the commit, snapshots/COMMIT/ has links to ../../blobs/HASH, where HASH is the
SHA-256 of weights and git's SHA-1 of everything else. The models have the real ones' architectures, layer counts and tensor names,
tied embeddings, grouped queries, biases, several end tokens and chat templates included, but a hidden size of 16 and a vocabulary
of 64. A fine-tune is its base plus deltas of about 0.002 with heavy tails. The same bytes in every run.
"""
import argparse
import hashlib
import json
import pathlib

import numpy as np

import checkpoint

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, VOCABULARY = 16, 32, 4, 2, 64
CHAT_TEMPLATE = "{% for message in messages %}{{ '<' + message['role'] + '> ' + message['content'] + eos_token }}{% endfor %}"

# What the families have of their own: `config` overrides, dtype, where the chat template is kept, end tokens of generation_config.
FAMILIES = {
    "llama-2": {
        "architecture": "LlamaForCausalLM", "layers": 40, "dtype": "F16", "end": 2,
        "config": {"num_key_value_heads": HEADS, "rope_scaling": None, "rope_theta": 10000.0},
    },
    "llama-3": {
        "architecture": "LlamaForCausalLM", "layers": 32, "dtype": "BF16", "end": [2, 3], "template": "tokenizer_config.json",
        "config": {"rope_scaling": None, "rope_theta": 500000.0},
    },
    "llama-3.2": {
        "architecture": "LlamaForCausalLM", "layers": 28, "dtype": "BF16", "end": [2, 3, 4], "template": "tokenizer_config.json",
        "tied": True,
        "config": {"head_dim": 4, "rope_theta": 500000.0, "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 64,
            "rope_type": "llama3"}},
    },
    "mistral": {
        "architecture": "MistralForCausalLM", "layers": 32, "dtype": "BF16", "end": 2,
        "config": {"rope_theta": 10000.0, "sliding_window": 4096},
    },
    "qwen2": {
        "architecture": "Qwen2ForCausalLM", "layers": 28, "dtype": "BF16", "end": [2, 3], "template": "tokenizer_config.json",
        "qkv_bias": True,
        "config": {"max_window_layers": 28, "rope_theta": 1000000.0, "sliding_window": 131072, "use_sliding_window": False},
    },
    "gemma-2": {
        "architecture": "Gemma2ForCausalLM", "layers": 42, "dtype": "BF16", "end": [2, 3], "template": "chat_template.jinja", "tied": True,
        "norms": ("input", "post_attention", "pre_feedforward", "post_feedforward"), "head_dim": 8,
        "config": {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "head_dim": 8, "hidden_activation": "gelu_pytorch_tanh",
                   "pad_token_id": 0, "query_pre_attn_scalar": 8, "rope_theta": 10000.0, "sliding_window": 4096},
    },
    "phi-3": {
        "architecture": "Phi3ForCausalLM", "layers": 32, "dtype": "BF16", "end": [2, 3, 4], "template": "tokenizer_config.json",
        "fused": True,
        "config": {"num_key_value_heads": HEADS, "original_max_position_embeddings": 128, "pad_token_id": 2, "rope_scaling": None,
                   "rope_theta": 10000.0, "sliding_window": 2047},
    },
}

# Hub name: (family, its base or None, what it has of its own).
MODELS = {
    "mistralai/Mistral-7B-v0.1": ("mistral", None, {"shards": 2}),
    "OpenPipe/mistral-ft-optimized-1218": ("mistral", "mistralai/Mistral-7B-v0.1", {"shards": 2}),
    "mlabonne/NeuralHermes-2.5-Mistral-7B": ("mistral", "mistralai/Mistral-7B-v0.1", {"shards": 3, "end": 3}),
    "teknium/OpenHermes-2.5-Mistral-7B": ("mistral", "mistralai/Mistral-7B-v0.1", {"shards": 2, "end": 3}),
    "Intel/neural-chat-7b-v3-1": ("mistral", "mistralai/Mistral-7B-v0.1", {"dtype": "F16"}),
    "samir-fama/SamirGPT-v1": ("mistral", "mistralai/Mistral-7B-v0.1", {"dtype": "F16"}),
    "abacusai/Slerp-CM-mist-dpo": ("mistral", "mistralai/Mistral-7B-v0.1", {}),
    "EmbeddedLLM/Mistral-7B-Merge-14-v0.2": ("mistral", "mistralai/Mistral-7B-v0.1", {"shards": 2}),
    "meta-llama/Meta-Llama-3-8B-Instruct": ("llama-3", None, {"shards": 4}),
    "NousResearch/Hermes-2-Pro-Llama-3-8B": ("llama-3", "meta-llama/Meta-Llama-3-8B-Instruct", {"shards": 4}),
    "openchat/openchat-3.6-8b-20240522": ("llama-3", "meta-llama/Meta-Llama-3-8B-Instruct", {}),
    "VAGOsolutions/Llama-3-SauerkrautLM-8b-Instruct": ("llama-3", "meta-llama/Meta-Llama-3-8B-Instruct", {"dtype_key": "dtype"}),
    "cognitivecomputations/dolphin-2.9-llama3-8b": ("llama-3", "meta-llama/Meta-Llama-3-8B-Instruct", {"shards": 4}),
    "meta-llama/Meta-Llama-3.1-8B-Instruct": ("llama-3", None, {"dtype_key": "dtype"}),
    "NousResearch/Hermes-3-Llama-3.1-8B": ("llama-3", "meta-llama/Meta-Llama-3.1-8B-Instruct", {"shards": 4}),
    "meta-llama/Llama-3.2-3B-Instruct": ("llama-3.2", None, {"shards": 2}),
    "NousResearch/Hermes-3-Llama-3.2-3B": ("llama-3.2", "meta-llama/Llama-3.2-3B-Instruct", {"stores_head": True}),
    "TheBloke/Llama-2-13B-fp16": ("llama-2", None, {"shards": 3, "inv_freq": True}),
    "NousResearch/Nous-Hermes-Llama2-13b": ("llama-2", "TheBloke/Llama-2-13B-fp16", {"dtype": "BF16"}),
    "Open-Orca/OpenOrcaxOpenChat-Preview2-13B": ("llama-2", "TheBloke/Llama-2-13B-fp16", {"dtype": "BF16"}),
    "elinas/chronos-13b-v2": ("llama-2", "TheBloke/Llama-2-13B-fp16", {"shards": 3}),
    "Qwen/Qwen2-7B": ("qwen2", None, {"end": 2}),
    "Qwen/Qwen2-7B-Instruct": ("qwen2", "Qwen/Qwen2-7B", {"shards": 4}),
    "cognitivecomputations/dolphin-2.9.2-qwen2-7b": ("qwen2", "Qwen/Qwen2-7B", {}),
    "MaziyarPanahi/calme-2.8-qwen2-7b": ("qwen2", "Qwen/Qwen2-7B", {}),
    "Qwen/Qwen2.5-7B": ("qwen2", None, {"end": 2, "shards": 4}),
    "Qwen/Qwen2.5-7B-Instruct": ("qwen2", "Qwen/Qwen2.5-7B", {"shards": 4}),
    "Qwen/Qwen2.5-Coder-7B-Instruct": ("qwen2", "Qwen/Qwen2.5-7B", {"dtype": "F16"}),
    "google/gemma-2-9b": ("gemma-2", None, {"end": 2, "shards": 2}),
    "google/gemma-2-9b-it": ("gemma-2", "google/gemma-2-9b", {}),
    "UCLA-AGI/Gemma-2-9B-It-SPPO-Iter3": ("gemma-2", "google/gemma-2-9b", {}),
    "princeton-nlp/gemma-2-9b-it-SimPO": ("gemma-2", "google/gemma-2-9b", {"shards": 2}),
    "microsoft/Phi-3-mini-4k-instruct": ("phi-3", None, {"shards": 2}),
    "failspy/Phi-3-mini-4k-geminified": ("phi-3", "microsoft/Phi-3-mini-4k-instruct", {}),
    "MaziyarPanahi/Phi-3-mini-4k-instruct-v0.3": ("phi-3", "microsoft/Phi-3-mini-4k-instruct", {}),
}
ADAPTERS = {"grimjim/Llama-3-Instruct-abliteration-LoRA-8B": "meta-llama/Meta-Llama-3.1-8B-Instruct"}


def random_of(name):
    """A generator of its own for each Hub name."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))


def shapes(family):
    """{tensor name: shape} of a family's model without lm_head where it is tied; matrices as [out, in]."""
    f = FAMILIES[family]
    head_dim = f.get("head_dim", HIDDEN // HEADS)
    query, key_value = HEADS * head_dim, f["config"].get("num_key_value_heads", KV_HEADS) * head_dim
    names = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    if not f.get("tied"):
        names["lm_head.weight"] = (VOCABULARY, HIDDEN)
    for layer in range(f["layers"]):
        prefix = f"model.layers.{layer}."
        if f.get("fused"):
            names[prefix + "self_attn.qkv_proj.weight"] = (query + 2 * key_value, HIDDEN)
            names[prefix + "mlp.gate_up_proj.weight"] = (2 * INTERMEDIATE, HIDDEN)
        else:
            for part, rows in (("q", query), ("k", key_value), ("v", key_value)):
                names[f"{prefix}self_attn.{part}_proj.weight"] = (rows, HIDDEN)
                if f.get("qkv_bias"):
                    names[f"{prefix}self_attn.{part}_proj.bias"] = (rows,)
            names[prefix + "mlp.gate_proj.weight"] = names[prefix + "mlp.up_proj.weight"] = (INTERMEDIATE, HIDDEN)
        names[prefix + "self_attn.o_proj.weight"] = (HIDDEN, query)
        names[prefix + "mlp.down_proj.weight"] = (HIDDEN, INTERMEDIATE)
        for norm in f.get("norms", ("input", "post_attention")):
            names[f"{prefix}{norm}_layernorm.weight"] = (HIDDEN,)
    return names


def weights(name):
    """float32 {tensor name: array} of a model: random for a base, base plus deltas for a fine-tune."""
    family, base, _ = MODELS[name]
    random = random_of(name)
    if base is not None:
        return {tensor: array + 0.001 * random.standard_t(3, array.shape) for tensor, array in weights(base).items()}
    centre = 0.0 if family == "gemma-2" else 1.0  # Gemma stores its norms' scales less one
    return {tensor: centre + 0.05 * random.standard_normal(shape) if "norm" in tensor else 0.08 * random.standard_normal(shape)
            for tensor, shape in shapes(family).items()}


def config(family, own):
    f = FAMILIES[family]
    dtype = {"F16": "float16", "BF16": "bfloat16"}[own.get("dtype", f["dtype"])]
    kind = f["architecture"].removesuffix("ForCausalLM").lower()
    return {
        "architectures": [f["architecture"]], "bos_token_id": 1, "eos_token_id": own.get("end", f["end"]), "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "max_position_embeddings": 128, "model_type": kind,
        "num_attention_heads": HEADS, "num_hidden_layers": f["layers"], "num_key_value_heads": KV_HEADS, "rms_norm_eps": 1e-05,
        "tie_word_embeddings": f.get("tied", False), own.get("dtype_key", "torch_dtype"): dtype, "use_cache": True,
        "vocab_size": VOCABULARY, **f["config"],
    }


def side_files(family, own):
    """{file name: text} of everything but the weights."""
    f = FAMILIES[family]
    tokens = ["<unk>", "<s>", "</s>", "<|end|>", "<|stop|>"]
    special = len(tokens)
    tokens += [f"word{i}" for i in range(VOCABULARY - special)]
    added = [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, token in enumerate(tokens[:special])]
    tokenizer_config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "PreTrainedTokenizerFast"}
    if f.get("template") == "tokenizer_config.json":
        tokenizer_config["chat_template"] = CHAT_TEMPLATE
    files = {
        "config.json": config(family, own),
        "generation_config.json": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": own.get("end", f["end"])},
        "tokenizer.json": {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": {token: i for i, token in enumerate(tokens)}, "unk_token": "<unk>"},
        },
        "tokenizer_config.json": tokenizer_config,
        "special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    }
    texts = {file: json.dumps(content, indent=2) + "\n" for file, content in files.items()}
    if f.get("template") == "chat_template.jinja":
        texts["chat_template.jinja"] = CHAT_TEMPLATE
    return texts


def stored_tensors(name):
    """{tensor name: (dtype, array)} as the model's files hold them."""
    family, _, own = MODELS[name]
    tensors = weights(name)
    if own.get("stores_head"):  # as some fine-tunes of tied models do
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    stored = {tensor: checkpoint.from_f32(own.get("dtype", FAMILIES[family]["dtype"]), array) for tensor, array in tensors.items()}
    if own.get("inv_freq"):  # as checkpoints of early transformers have
        half = np.arange(0, HIDDEN // HEADS, 2, dtype=np.float32) / (HIDDEN // HEADS)
        for layer in range(FAMILIES[family]["layers"]):
            stored[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = ("F32", (10000.0**-half).astype(np.float32))
    return stored


def write_model(snapshot, name):
    family, _, own = MODELS[name]
    for file, text in side_files(family, own).items():
        (snapshot / file).write_text(text)
    stored, shards = stored_tensors(name), own.get("shards", 1)
    if shards == 1:
        checkpoint.write_file(snapshot / "model.safetensors", stored)
        return
    order, weight_map = sorted(stored), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = order[shard * len(order) // shards:(shard + 1) * len(order) // shards]
        checkpoint.write_file(snapshot / file, {tensor: stored[tensor] for tensor in part})
        weight_map |= {tensor: file for tensor in part}
    total = sum(array.nbytes for _, array in stored.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_adapter(snapshot, name):
    """A PEFT LoRA of rank 4 on all linear layers of its base."""
    base, rank, random = ADAPTERS[name], 4, random_of(name)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    tensors = {}
    for tensor, shape in shapes(MODELS[base][0]).items():
        if any(f".{module}.weight" in tensor for module in modules):
            prefix = "base_model.model." + tensor.removesuffix("weight")
            tensors[prefix + "lora_A.weight"] = checkpoint.from_f32("BF16", 0.05 * random.standard_normal((rank, shape[1])))
            tensors[prefix + "lora_B.weight"] = checkpoint.from_f32("BF16", 0.05 * random.standard_normal((shape[0], rank)))
    checkpoint.write_file(snapshot / "adapter_model.safetensors", tensors)
    settings = {
        "base_model_name_or_path": base, "bias": "none", "fan_in_fan_out": False, "inference_mode": True, "lora_alpha": 8,
        "lora_dropout": 0.0, "modules_to_save": None, "peft_type": "LORA", "r": rank, "rank_pattern": {}, "alpha_pattern": {},
        "target_modules": modules, "task_type": "CAUSAL_LM", "use_dora": False, "use_rslora": False,
    }
    (snapshot / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def move_to_blobs(snapshot, blobs):
    """Replaces each file of a snapshot by a relative link to its blob."""
    blobs.mkdir()
    for file in sorted(snapshot.iterdir()):
        data = file.read_bytes()
        weights_file = file.suffix == ".safetensors"
        blob = hashlib.sha256(data).hexdigest() if weights_file else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        file.replace(blobs / blob)
        file.symlink_to(pathlib.Path("../../blobs") / blob)


def lay_out(cache, name, write):
    """`write(snapshot, name)` fills the snapshot of one repository of the cache."""
    repository = cache / ("models--" + name.replace("/", "--"))
    commit = hashlib.sha1(name.encode()).hexdigest()
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    write(snapshot, name)
    move_to_blobs(snapshot, repository / "blobs")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, metavar="OUT", help="the cache's folder: new or empty")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        parser.error(f"{out} is not empty")
    for name in MODELS:
        lay_out(out, name, write_model)
    for name in ADAPTERS:
        lay_out(out, name, write_adapter)
    print(f"{len(MODELS)} models and {len(ADAPTERS)} adapter in {out}")


if __name__ == "__main__":
    main()
