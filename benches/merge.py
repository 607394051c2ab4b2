#!/usr/bin/env python3
"""Times whole merges against a plain copy, in turn in one run. Python's standard library only.

    cargo build --release && cargo run --release -p deltaic --example synthetic -- /tmp/synthetic --parameters 1.1B
    benches/merge.py /tmp/synthetic [--runs 5] [--only NAME ...] [--threads N]

The plain copy is `cat` of the base and two fine-tunes to nowhere, then a copy of the base with fsync. Copy and merge are timed in turn,
a copy before each merge, with a sync before either, so that a slow moment of the machine meets both. The table has the ratio of the
medians, the median, least and greatest ratio of a merge to the copy before it, and the peak of private memory (RssAnon)."""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import threading
import time

MODELS = "models:\n  - {{model: {a}, parameters: {{{p}}}}}\n  - {{model: {b}, parameters: {{{p}}}}}\n"
BASE = "base_model: {base}\n"
DARE = "sparsify: {{kind: dare, drop_rate: 0.9}}\nseed: 42\n"
PAPER = "preset: paper\n"
RECIPES = {
    "passthrough": "merge_method: passthrough\nmodels: [{{model: {a}}}]\n",
    "passthrough, dare": "merge_method: passthrough\n" + BASE + "models: [{{model: {a}}}]\n" + DARE,
    "linear": "merge_method: linear\n" + MODELS.replace("{p}", "weight: 0.5"),
    "average": "merge_method: average\n" + BASE + MODELS.replace("{p}", ""),
    "average, dare": "merge_method: average\n" + BASE + MODELS.replace("{p}", "") + DARE,
    "task_arithmetic": "merge_method: task_arithmetic\n" + BASE + MODELS.replace("{p}", "weight: 0.5"),
    "task_arithmetic, dare": "merge_method: task_arithmetic\n" + BASE + MODELS.replace("{p}", "weight: 0.5") + DARE,
    "dare_linear": "merge_method: dare_linear\nseed: 42\n" + BASE + MODELS.replace("{p}", "weight: 0.5, density: 0.1"),
    "dare_ties": "merge_method: dare_ties\nseed: 42\n" + BASE + MODELS.replace("{p}", "weight: 0.5, density: 0.1"),
    "ties": "merge_method: ties\n" + BASE + MODELS.replace("{p}", "weight: 0.5, density: 0.2"),
    "ties (paper)": PAPER + "merge_method: ties\n" + BASE + MODELS.replace("{p}", ""),
    "average, magnitude": "merge_method: average\n" + BASE + MODELS.replace("{p}", "") + "sparsify: {{kind: magnitude, drop_rate: 0.9}}\n",
    "slerp": "merge_method: slerp\nbase_model: {a}\n" + MODELS.replace("{p}", "") + "parameters: {{t: 0.3}}\n",
    "model_stock": "merge_method: model_stock\n" + BASE + MODELS.replace("{p}", ""),
    "model_stock, rows": "merge_method: model_stock\n" + BASE + MODELS.replace("{p}", "") + "parameters: {{filter_wise: true}}\n",
}


def copy(models, scratch):
    """The plain copy."""
    files = [file for model in models for file in sorted(model.glob("*.safetensors"))]
    out = scratch / "copy"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    os.sync()
    start = time.monotonic()
    with open(os.devnull, "wb") as nowhere:
        subprocess.run(["cat", *files], stdout=nowhere, check=True)
    for file in sorted(models[0].glob("*.safetensors")):
        subprocess.run(["cp", "--sparse=never", file, out], check=True)
        handle = os.open(out / file.name, os.O_RDWR)
        os.fsync(handle)
        os.close(handle)
    return time.monotonic() - start


def peak_private(process, peak):
    """Follows a process's RssAnon until it ends."""
    while process.poll() is None:
        try:
            for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    peak[0] = max(peak[0], int(line.split()[1]) * 1024)
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.02)


def merge(program, recipe, scratch, threads):
    """(seconds, CPU seconds, peak private bytes) of one merge."""
    out = scratch / "merged"
    shutil.rmtree(out, ignore_errors=True)
    command = [program, "merge", recipe, out, "--quiet"] + (["--threads", str(threads)] if threads else [])
    os.sync()
    peak, before, start = [0], os.times(), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watcher = threading.Thread(target=peak_private, args=(process, peak))
    watcher.start()
    if process.wait() != 0:
        raise SystemExit(f"{recipe.name}: exit code {process.returncode}")
    seconds, after = time.monotonic() - start, os.times()
    watcher.join()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, cpu, peak[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path, help="a folder with base, fine-tune-1, fine-tune-2")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of recipes: " + "; ".join(RECIPES))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--program", default=pathlib.Path(__file__).parent.parent / "target/release/deltaic")
    parser.add_argument("--scratch", type=pathlib.Path, help="where outputs are made; beside the models without it")
    arguments = parser.parse_args()
    base, a, b = (arguments.models.resolve() / name for name in ("base", "fine-tune-1", "fine-tune-2"))
    names = arguments.only or list(RECIPES)
    with tempfile.TemporaryDirectory(dir=arguments.scratch or arguments.models) as scratch:
        scratch = pathlib.Path(scratch)
        recipes = {}
        for i, name in enumerate(names):
            recipes[name] = scratch / f"recipe-{i}.yml"
            recipes[name].write_text(RECIPES[name].format(base=base, a=a, b=b))
        rows = {name: [] for name in names}
        copy([base, a, b], scratch)  # warms the page cache
        for _ in range(arguments.runs):
            for name, recipe in recipes.items():
                copied = copy([base, a, b], scratch)
                rows[name].append((copied, *merge(arguments.program, recipe, scratch, arguments.threads)))
        copies = [run[0] for runs in rows.values() for run in runs]
        print(f"plain copy: median {statistics.median(copies):.2f} s (least {min(copies):.2f}, greatest {max(copies):.2f})")
        print(f"{'recipe':24} {'of medians':>10} {'median':>7} {'least':>6} {'most':>6} {'seconds':>8} {'CPU s':>6} {'private MB':>10}")
        for name, runs in rows.items():
            copied, seconds, cpu, peaks = zip(*runs)
            ratios = [second / copied for second, copied in zip(seconds, copied)]
            of_medians = statistics.median(seconds) / statistics.median(copied)
            print(
                f"{name:24} {of_medians:10.2f} {statistics.median(ratios):7.2f} {min(ratios):6.2f} {max(ratios):6.2f} "
                f"{statistics.median(seconds):8.2f} {statistics.median(cpu):6.2f} {max(peaks) / 1e6:10.0f}"
            )

if __name__ == "__main__":
    main()
