"""Result files as lm-evaluation-harness writes them, for crates/eval/tests/harness_results.rs.

    python tests/python/harness_results.py crates/eval/tests/harness

Runs the harness's own dummy model (random log-likelihoods) on the items of harness_requests.py, and keeps results and samples without what is said about
this machine. Needs lm_eval (requirements.txt); no model, no network.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from harness_requests import DEFINITIONS, load_yaml  # sets the offline variables

import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.loggers import EvaluationTracker

TASKS = {"arc_easy": "test", "truthfulqa_mc2": "validation", "gsm8k": "test"}
KEPT = ["results", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "model_name", "model_source", "lm_eval_version", "config"]


def task(folder, name):
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / DEFINITIONS[name])
    config.pop("tag", None)
    files = {path.stem: str(path) for path in (folder / name).glob("*.jsonl")}
    config |= {"task": name, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    return ConfigurableTask(config=config | {"num_fewshot": 0})


def main(folder):
    with tempfile.TemporaryDirectory() as scratch:
        tracker = EvaluationTracker(output_path=scratch)
        results = lm_eval.simple_evaluate(
            model="dummy", model_args="pretrained=somebody/large-model", tasks=[task(folder, name) for name in TASKS], log_samples=True, evaluation_tracker=tracker
        )
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        for name in TASKS:
            tracker.save_results_samples(task_name=name, samples=samples[name])
        out = folder / "results"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        for path in Path(scratch).rglob("*.json*"):
            kind = path.name.split("_20")[0]
            if path.suffix == ".jsonl":
                lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
                dropped = {"doc", "arguments", "resps", "filtered_resps", "doc_hash", "prompt_hash", "target_hash", "target"}
                lines = [{key: value for key, value in line.items() if key not in dropped} for line in lines]
                text = "".join(json.dumps(line) + "\n" for line in lines)
            else:
                whole = json.loads(path.read_text(encoding="utf-8"))
                whole["configs"] = {}
                text = json.dumps({key: whole[key] for key in KEPT if key in whole}, indent=1) + "\n"
            (out / f"{kind}_2026-11-25T12-00-00.000000{path.suffix}").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
