#!/usr/bin/env python3
"""Largest difference between two checkpoints per tensor, in units in the last place of the dtype. Needs NumPy.

    compare_models.py A B [--ulp N] [--round DTYPE]

The distance of two numbers is how many representable numbers one steps over from one to the other (0: equal; +0 and -0 are equal).
Tensor names, shapes and dtypes must be the same. With --round (BF16, F16) both are rounded first, to compare an f32 file with a
16-bit one. Ends with 1 where a tensor differs by more than N (default 0). The last column counts the elements above N.
"""
import argparse
import sys

import numpy as np

import checkpoint

BITS = {"F32": (np.int32, 31), "F16": (np.int16, 15), "BF16": (np.int16, 15), "F64": (np.int64, 63)}


def positions(dtype, array):
    """Each number's place in the order of all numbers of its dtype; both zeros are 0."""
    signed, magnitude_bits = BITS[dtype]
    bits = np.ascontiguousarray(array).view(signed).astype(np.int64)
    magnitude = bits & ((1 << magnitude_bits) - 1)
    return np.where(bits < 0, -magnitude, magnitude)


def distances(a, b):
    """Element-wise distances of two tensors (dtype, array) of one dtype; for integers and bool, 1 where they differ."""
    if a[0] not in BITS:
        return (a[1] != b[1]).astype(np.int64)
    return np.abs(positions(*a) - positions(*b))


def rounded(tensor, dtype):
    return checkpoint.from_f32(dtype, checkpoint.to_f32(*tensor)) if dtype and tensor[0] in checkpoint.FLOATS else tensor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("a", "b"):
        parser.add_argument(name, metavar=name.upper(), help="a checkpoint's folder or safetensors file")
    parser.add_argument("--ulp", type=int, default=0, metavar="N", help="how many units are allowed")
    parser.add_argument("--round", choices=("BF16", "F16", "F32"), metavar="DTYPE", help="round both to this dtype first")
    args = parser.parse_args()
    a, b = checkpoint.read(args.a), checkpoint.read(args.b)
    only = sorted(set(a) ^ set(b))
    if only:
        sys.exit(f"in one of the two only: {', '.join(only)}")
    worst = above = elements = 0
    print(f"{'ulp':>8} {'above':>10}  tensor")
    for name in sorted(a):
        left, right = rounded(a[name], args.round), rounded(b[name], args.round)
        if (left[0], left[1].shape) != (right[0], right[1].shape):
            sys.exit(f"{name}: {left[0]} {list(left[1].shape)} in A, {right[0]} {list(right[1].shape)} in B")
        distance = distances(left, right)
        largest, over = int(distance.max(initial=0)), int(np.count_nonzero(distance > args.ulp))
        worst, above, elements = max(worst, largest), above + over, elements + distance.size
        print(f"{largest:8} {over:10}  {name}")
    print(f"{worst:8} {above:10}  largest of {len(a)} tensors; elements above of {elements}")
    sys.exit(worst > args.ulp)


if __name__ == "__main__":
    main()
