#!/usr/bin/env python3
"""Opens a model folder as its users do: with Python's safetensors, then with transformers in float32 on the CPU.

    open_model.py FOLDER [--layers N] [--logits]

Fails where index and shards disagree, a tensor cannot be read, transformers misses or does not expect a tensor, the layer count is
not N, or an output is not finite. Prints one line of JSON: architecture, layers, vocab, dtype, dtypes, tensors, parameters, shards;
with --logits also the outputs at the last of eight tokens. Needs torch, transformers, safetensors; ends with 77 without them.
"""
import argparse
import collections
import json
import pathlib
import sys

try:
    import safetensors
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}", file=sys.stderr)
    sys.exit(77)

TOKENS = [1, 5, 9, 13, 17, 21, 25, 29]
INDEX = "model.safetensors.index.json"


def open_shards(folder):
    """(dtypes by number of tensors, names, shards) after reading every tensor; exits where index and shards disagree."""
    shards = sorted(file.name for file in folder.glob("*.safetensors"))
    held, dtypes, total = {}, collections.Counter(), 0
    for shard in shards:
        with safetensors.safe_open(folder / shard, framework="pt") as file:
            if (file.metadata() or {}).get("format") != "pt":
                sys.exit(f"{folder / shard}: metadata has no format: pt")
            for name in file.keys():
                if name in held:
                    sys.exit(f"{name}: in {held[name]} and in {shard}")
                tensor = file.get_tensor(name)
                held[name] = shard
                dtypes[str(tensor.dtype).removeprefix("torch.")] += 1
                total += tensor.nbytes
    if (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text())
        if index["weight_map"] != held:
            sys.exit(f"{folder / INDEX}: weight_map is not what the shards hold")
        if index["metadata"]["total_size"] != total:
            sys.exit(f"{folder / INDEX}: total_size is {index['metadata']['total_size']}, the tensors have {total} bytes")
    elif shards != ["model.safetensors"]:
        sys.exit(f"{folder}: expected model.safetensors or an index, found {shards}")
    return dtypes, held, shards


def load(folder, config):
    """The model of config.json's architecture; exits where transformers misses or does not expect a tensor."""
    model_class = getattr(transformers, config.architectures[0])
    model, info = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {kind: sorted(map(str, entries)) for kind, entries in info.items() if entries}
    if problems:
        sys.exit(f"{folder}: transformers found {json.dumps(problems)}")
    return model.eval()


def outputs(model):
    """Logits, or hidden states of a model without a head, at the last of a few tokens."""
    vocabulary = model.config.get_text_config().vocab_size
    with torch.no_grad():
        out = model(input_ids=torch.tensor([[token % vocabulary for token in TOKENS]]))
    values = out.logits if "logits" in out else out.last_hidden_state[:, -1]
    if not values.isfinite().all():
        sys.exit("an output is not finite")
    return values.reshape(-1, values.shape[-1])[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--layers", type=int, metavar="N", help="fail unless config.json says N layers")
    parser.add_argument("--logits", action="store_true", help="print the outputs too")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    dtypes, names, shards = open_shards(args.folder)
    config = transformers.AutoConfig.from_pretrained(args.folder)
    text_config = config.get_text_config()
    if args.layers not in (None, text_config.num_hidden_layers):
        sys.exit(f"config.json has {text_config.num_hidden_layers} layers, expected {args.layers}")
    model = load(args.folder, config)
    values = outputs(model)
    line = {
        "architecture": config.architectures[0], "layers": text_config.num_hidden_layers, "vocab": text_config.vocab_size,
        "dtype": str(config.dtype).removeprefix("torch."), "dtypes": dict(dtypes), "tensors": len(names),
        "parameters": sum(parameter.numel() for parameter in model.parameters()), "shards": len(shards),
    }
    if args.logits:
        line["logits"] = values.tolist()
    print(json.dumps(line))


if __name__ == "__main__":
    main()
