"""Fisher information and Gram matrices of tiny models by their definitions, in float64, with torch and transformers.

    python expected.py > expected.json

Needs torch and transformers (recorded with the versions that the file names). It shares nothing with deltaic: gradients are torch's, one
backward pass for each class of each example; Gram matrices come from hooks on torch.nn.Linear.
"""

import json
import math

import numpy as np
import torch
import transformers
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

BERT = dict(
    hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, vocab_size=30, max_position_embeddings=12,
    type_vocab_size=2, hidden_act="gelu", layer_norm_eps=1e-12, pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)
LLAMA = dict(
    hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=30,
    max_position_embeddings=32, hidden_act="silu", rms_norm_eps=1e-6, rope_theta=10000.0, attention_dropout=0.0,
)
# Ids, segments, label, first target.
TEXTS = [
    ([1, 5, 9, 2, 7, 3, 2], [0, 0, 0, 0, 1, 1, 1], 1.5, 2),
    ([1, 29, 28, 2], [0, 0, 0, 0], -0.5, 1),
    ([1, 8, 8, 6, 2], [0, 0, 1, 1, 1], 4.0, 3),
    ([1, 11], [0, 0], 0.25, 1),
    ([1, 4, 19, 21, 3, 2], [0, 0, 0, 1, 1, 1], 2.0, 5),
]


def fill(model):
    """Weights by a formula, so that they need not be stored: tensors in the order of their names."""
    state = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    if model.config.tie_word_embeddings and "lm_head.weight" in state:
        del state["lm_head.weight"]
    for number, name in enumerate(sorted(state)):
        tensor = state[name]
        centre = 1.0 if tensor.dim() == 1 and name.endswith("weight") else 0.0
        values = [np.float32(centre + 0.4 * math.sin(1.0 + 0.37 * k + 17.0 * number)) for k in range(tensor.numel())]
        with torch.no_grad():
            tensor.copy_(torch.tensor(np.array(values)).reshape(tensor.shape))
    return {name: list(state[name].shape) for name in sorted(state)}


def bert(labels):
    config = BertConfig(**BERT, num_labels=labels)
    return BertForSequenceClassification._from_config(config, attn_implementation="eager").double().eval()


def llama(tied):
    config = LlamaConfig(**LLAMA, tie_word_embeddings=tied)
    return LlamaForCausalLM._from_config(config, attn_implementation="eager").double().eval()


def logits_of(model, texts):
    width = max(len(ids) for ids, *_ in texts)
    pad = lambda row: torch.tensor(row + [0] * (width - len(row)))
    mask = torch.stack([pad([1] * len(ids)) for ids, *_ in texts])
    inputs = dict(input_ids=torch.stack([pad(ids) for ids, *_ in texts]), attention_mask=mask)
    if isinstance(model, BertForSequenceClassification):
        inputs["token_type_ids"] = torch.stack([pad(types) for _, types, *_ in texts])
    return model(**inputs).logits


def squares(model, loss):
    gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True)
    return {name: gradient ** 2 for (name, _), gradient in zip(model.named_parameters(), gradients) if gradient is not None}


def log_likelihood(model, text):
    ids, _, _, first = text
    logs = torch.log_softmax(logits_of(model, [text])[0], -1)
    return sum(logs[at - 1, ids[at]] for at in range(first, len(ids)))


def fisher_example(model):
    sums = {}
    for text in TEXTS:
        if isinstance(model, LlamaForCausalLM):
            terms = [(1.0, log_likelihood(model, text))]
        else:
            logits = logits_of(model, [text])[0]
            if len(logits) == 1:
                terms = [(1.0, (logits[0] - text[2]) ** 2)]
            else:
                logs = torch.log_softmax(logits, -1)
                terms = [(math.exp(log.item()), log) for log in logs]
        for weight, loss in terms:
            for name, square in squares(model, loss).items():
                sums[name] = sums.get(name, 0.0) + weight * square
    return {name: value / len(TEXTS) for name, value in sums.items()}


def fisher_sum(model, size):
    sums, counter = {}, 0
    for start in range(0, len(TEXTS), size):
        texts = TEXTS[start:start + size]
        if isinstance(model, LlamaForCausalLM):
            loss = sum(log_likelihood(model, text) for text in texts)
        else:
            logits = logits_of(model, texts)
            if logits.shape[1] == 1:
                loss = ((logits[:, 0] - torch.tensor([label for _, _, label, _ in texts], dtype=torch.float64)) ** 2).mean()
            else:
                loss = (torch.softmax(logits, -1).detach().sqrt() * torch.log_softmax(logits, -1)).sum()
        for name, square in squares(model, loss).items():
            sums[name] = sums.get(name, 0.0) + square
        counter += size
    return {name: value / counter for name, value in sums.items()}


def gram(model, size, padding):
    """Batches of `size`; without padding one text at a time, which needs no mask to be applied."""
    sums, rows = {}, {}

    def hook(name):
        def add(module, inputs):
            x = inputs[0].detach().reshape(-1, inputs[0].shape[-1])
            sums[name] = sums.get(name, 0.0) + x.T @ x
            rows[name] = rows.get(name, 0) + len(x)
        return add

    named = [(name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    handles = [module.register_forward_pre_hook(hook(name)) for name, module in named]
    size = size if padding else 1
    for start in range(0, len(TEXTS), size):
        logits_of(model, TEXTS[start:start + size])
    [handle.remove() for handle in handles]
    stored = dict(model.named_parameters())
    return {f"{name}.weight": sums[name] / rows[name] for name, _ in named if f"{name}.weight" in stored}


def summary(tensors):
    """Of each tensor its sum, its largest element and up to eight elements."""
    digits = lambda value: float(f"{value.item():.8g}")
    out = {}
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().reshape(-1)
        at = sorted({round(k * (len(flat) - 1) / 7) for k in range(8)})
        out[name] = {"shape": list(tensor.shape), "sum": digits(flat.sum()), "largest": digits(flat.abs().max()),
                     "elements": [[k, digits(flat[k])] for k in at]}
    return out


def expected_trace(model, text):
    """Trace of the Fisher information of the last token under the model's own distribution."""
    logs = torch.log_softmax(logits_of(model, [text])[0], -1)[len(text[0]) - 2]
    return sum(math.exp(log.item()) * sum(square.sum().item() for square in squares(model, log).values()) for log in logs)


def main():
    models = {"bert-1": bert(1), "bert-2": bert(2), "bert-3": bert(3), "llama": llama(False), "llama-tied": llama(True)}
    out = {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}, "texts": TEXTS, "models": {}, "cases": []}
    for name, model in models.items():
        shapes = fill(model)
        config = dict(LLAMA if "llama" in name else BERT)
        config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": "tied" in name} if "llama" in name else {
            "model_type": "bert", "architectures": ["BertForSequenceClassification"]}
        out["models"][name] = {"config": config, "tensors": shapes}
        case = lambda kind, tensors, **more: out["cases"].append({"model": name, "kind": kind, **more, "tensors": summary(tensors)})
        case("fisher", fisher_example(model), batch=0)
        case("fisher", fisher_sum(model, 2), batch=2)
        case("gram", gram(model, 2, False), batch=0)
        if "bert" in name:  # What a decoder computes at padding positions is nobody's definition.
            case("gram", gram(model, 2, True), batch=2)
    out["trace"] = {"model": "llama", "text": 0, "value": expected_trace(models["llama"], TEXTS[0])}
    print(json.dumps(out))


main()
