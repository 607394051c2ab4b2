#!/usr/bin/env python3
"""Share of dropped deltas per tensor of a model made by DARE from one fine-tune, against the drop rate. Needs NumPy.

    mask_rates.py BASE MODEL OUT --drop-rate P [--max-z Z]

OUT is BASE plus MODEL's deltas with a share P dropped (`deltaic dare`, or task_arithmetic of one model with weight 1). Only elements
that MODEL changed count; one is dropped where OUT has BASE's value, in OUT's dtype. For n changed elements the number dropped is
binomial, so z = (dropped - n P) / sqrt(n P (1 - P)). Ends with 1 where a |z| is above Z (default 5), or at P = 0 and 1 where one
element differs. Names are matched with and without a leading `bert.` or `model.`.
"""
import argparse
import math
import sys

import numpy as np

import checkpoint


def find(tensors, name):
    """The tensor called `name`, with or without a model prefix; None where there is none."""
    bare = name.removeprefix("bert.").removeprefix("model.")
    return next((tensors[spelling] for spelling in (name, bare, "bert." + bare, "model." + bare) if spelling in tensors), None)


def count(base, model, out):
    """(changed, dropped) of one tensor; each argument is (dtype, array)."""
    changed = checkpoint.to_f32(*base) != checkpoint.to_f32(*model)
    base_in_out_dtype = checkpoint.to_f32(*checkpoint.from_f32(out[0], checkpoint.to_f32(*base)))
    dropped = changed & (checkpoint.to_f32(*out) == base_in_out_dtype)
    return int(np.count_nonzero(changed)), int(np.count_nonzero(dropped))


def z_score(changed, dropped, rate):
    deviation = math.sqrt(changed * rate * (1 - rate))
    excess = dropped - changed * rate
    return excess / deviation if deviation else math.copysign(math.inf, excess) if excess else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "model", "out"):
        parser.add_argument(name, metavar=name.upper(), help="a checkpoint's folder or safetensors file")
    parser.add_argument("--drop-rate", type=float, required=True, metavar="P")
    parser.add_argument("--max-z", type=float, default=5.0, metavar="Z")
    args = parser.parse_args()
    base, model, out = (checkpoint.read(folder) for folder in (args.base, args.model, args.out))
    totals, worst = np.zeros(2, np.int64), 0.0
    print(f"{'changed':>12} {'dropped':>12} {'rate':>10} {'z':>7}  tensor")
    for name in sorted(out):
        sources = [find(base, name), find(model, name)]
        if None in sources or any(dtype not in checkpoint.FLOATS for dtype, _ in (*sources, out[name])):
            continue
        changed, dropped = count(*sources, out[name])
        if changed:
            z = z_score(changed, dropped, args.drop_rate)
            worst, totals = max(worst, abs(z)), totals + (changed, dropped)
            print(f"{changed:12} {dropped:12} {dropped / changed:10.6f} {z:7.2f}  {name}")
    changed, dropped = map(int, totals)
    if not changed:
        sys.exit("no tensor with changed elements in common")
    z = z_score(changed, dropped, args.drop_rate)
    print(f"{changed:12} {dropped:12} {dropped / changed:10.6f} {z:7.2f}  all; largest |z| {worst:.2f}")
    sys.exit(worst > args.max_z)


if __name__ == "__main__":
    main()
