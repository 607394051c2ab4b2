#!/usr/bin/env python3
"""Compares what `deltaic delta --json` says with NumPy's figures. Needs NumPy.

    delta_twin.py REPORT.json BASE MODEL

Names of tensors are those of MODEL; in BASE they may lack their first component (a bare BertModel). Deltas are float32; everything
behind them is float64. Counts, extremes and quantiles have to be equal, sums within 1e-9 (std and cosine within 1e-7).
"""
import json
import sys

import numpy as np

import checkpoint

LIMITS, QUANTILES = (0.0002, 0.002, 0.005, 0.02), (0.001, 0.01, 0.5, 0.99, 0.999)


def figures(base, model):
    """The figures of one set of elements; `base` and `model` are float32."""
    with np.errstate(invalid="ignore"):
        delta = model - base
    finite = np.isfinite(delta)
    d, b, m = (array[finite].astype(np.float64) for array in (delta, base, model))
    exact = {
        "elements": delta.size, "not_finite": int((~finite).sum()), "unchanged": int((d == 0).sum()), "min": d.min(), "max": d.max(),
        "quantiles": {str(q): np.quantile(d, q) for q in QUANTILES},
        "within": {str(limit): (np.abs(delta[finite]) <= np.float32(limit)).sum() / d.size for limit in LIMITS},
    }
    norm, base_norm, model_norm = (float(np.sqrt((x * x).sum())) for x in (d, b, m))
    near = {"mean_magnitude": np.abs(d).mean(), "norm": norm, "base_norm": base_norm}
    loose = {"std": d.std(), "mean": d.mean()}
    if base_norm:
        near["relative_norm"] = norm / base_norm
    if base_norm and model_norm:
        loose["cosine"] = (b @ m) / (base_norm * model_norm)
    return exact, near, loose


def check(what, said, base, model):
    exact, near, loose = figures(base, model)
    for key, value in exact.items():
        assert said[key] == value, f"{what}: {key}: {said[key]}, NumPy {value}"
    for key, value in near.items():
        assert np.isclose(said[key], value, rtol=1e-9, atol=0), f"{what}: {key}: {said[key]}, NumPy {value}"
    for key, value in loose.items():
        assert np.isclose(said[key], value, rtol=1e-7, atol=1e-12), f"{what}: {key}: {said[key]}, NumPy {value}"


def main():
    report, base, model = json.load(open(sys.argv[1])), checkpoint.read(sys.argv[2]), checkpoint.read(sys.argv[3])
    groups = {}
    for tensor in report["tensors"]:
        name = tensor["name"]
        own = name if name in base else name.split(".", 1)[1]
        pair = [checkpoint.to_f32(*source).ravel() for source in (base[own], model[name])]
        check(name, tensor, *pair)
        for group in (("whole", None), ("kind", tensor["kind"]), ("layer", tensor["layer"])):
            groups.setdefault(group, []).append(pair)
    joined = lambda group: [np.concatenate(parts) for parts in zip(*groups[group])]  # noqa: E731
    check("model", report["whole"], *joined(("whole", None)))
    for kind, said in report["kinds"].items():
        check(kind, said, *joined(("kind", kind)))
    for said in report["layers"]:
        check(f"layer {said['layer']}", said, *joined(("layer", said["layer"])))
    compared = {tensor["name"] for tensor in report["tensors"]}
    passed_over = {tensor["name"] for tensor in report["not_compared"]}
    assert set(model) <= compared | passed_over, f"neither compared nor listed: {set(model) - compared - passed_over}"
    whole = report["whole"]
    print(f"{len(compared)} tensors, {whole['elements']} elements, q.999 {whole['quantiles']['0.999']:.3g}, cosine {whole['cosine']:.6f}")


if __name__ == "__main__":
    main()
