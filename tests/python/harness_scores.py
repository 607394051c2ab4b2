"""Log-likelihoods, answers and metrics of `deltaic eval` against lm-evaluation-harness running the same model, by hand (not in `.ci/run`).

    python tests/python/harness_scores.py MODEL DELTAIC [TASK...]

MODEL is a decoder's folder (the zoo's smollm2-135m-instruct), DELTAIC the binary. Both run on the items of harness_requests.py, in float32 on the CPU.
The harness gets a tokenizer that does what tokenizer.json says: transformers 5 makes a GPT2Tokenizer of SmolLM2's, which leaves out its pre-tokenizer of
digits, so that " 3.5" becomes other tokens. What must hold: every log-likelihood within 1e-3 nats; the same answer unless the two best scores lie within 2e-3; then equal metrics.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness_requests import DEFINITIONS, SUBJECTS, TASKS, load_yaml  # sets the offline variables

import lm_eval
import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerFast

SHOTS = {name: shots for name, (_, shots) in TASKS.items()} | {"mmlu": 3}
METRIC = {"truthfulqa_mc2": {"acc": "mass"}}


def harness_tasks(folder, name, scratch):
    """The harness's task, or for mmlu its subjects', on files of their own."""
    names = [f"mmlu_{subject}" for subject in SUBJECTS] if name == "mmlu" else [name]
    for one in names:
        files = {path.stem: str(path) for path in (folder / name).glob("*.jsonl")}
        if name == "mmlu":
            for split, path in list(files.items()):
                rows = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if json.loads(line)["subject"] == one.removeprefix("mmlu_")]
                files[split] = str(Path(scratch) / f"{one}_{split}.jsonl")
                Path(files[split]).write_text("\n".join(rows) + "\n", encoding="utf-8")
        config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / DEFINITIONS.get(one, f"mmlu/default/{one}.yaml"))
        config.pop("tag", None)
        config |= {"task": one, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        yield ConfigurableTask(config=config | {"num_fewshot": SHOTS[name], "fewshot_config": {"sampler": "first_n"}})


def of_harness(model, task):
    task.build_all_requests(rank=0, world_size=1)
    answers = model.loglikelihood(task.instances, disable_tqdm=True)
    items = []
    for doc_id, doc in enumerate(task.eval_docs):
        of_doc = sorted((one.idx, answer) for one, answer in zip(task.instances, answers) if one.doc_id == doc_id)
        results = [answer for _, answer in of_doc]
        items.append(([total for total, _ in results], task.process_results(doc, results)))
    return items


def of_deltaic(binary, model, name, data, scratch):
    records = Path(scratch) / f"{name}.records.jsonl"
    command = [binary, "eval", model, "--task", name, "--data", data, "--records", records, "--json", "--quiet"]
    if SHOTS[name]:
        command += ["--shots", str(SHOTS[name])]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE)
    return [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]


def main(model_folder, binary, names):
    torch.set_num_threads(2)
    folder = Path(__file__).resolve().parents[2] / "crates/eval/tests/harness"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_folder)
    model = HFLM(pretrained=model_folder, tokenizer=tokenizer, dtype="float32", device="cpu", batch_size=8)
    failed = False
    for name in names or [name for name in SHOTS if name not in ("gsm8k", "wikitext")]:
        with tempfile.TemporaryDirectory() as scratch:
            theirs = [item for task in harness_tasks(folder, name, scratch) for item in of_harness(model, task)]
            ours = of_deltaic(binary, model_folder, name, folder / name, scratch)
        assert len(ours) == len(theirs), (name, len(ours), len(theirs))
        furthest, different, close = 0.0, 0, 0
        for record, (sums, scores) in zip(ours, theirs):
            furthest = max([furthest] + [abs(a - b) for a, b in zip(record["answer"]["log_likelihoods"], sums, strict=True)])
            for metric, score in scores.items():
                own = record["scores"][METRIC.get(name, {}).get(metric, metric)]
                if abs(own - score) > 1e-3:
                    best = sorted(sums)[-2:]
                    close += best[1] - best[0] < 2e-3
                    different += best[1] - best[0] >= 2e-3
        ok = furthest < 1e-3 and different == 0
        failed |= not ok
        print(f"{name:16} {len(ours)} items: furthest log-likelihood {furthest:.2e} nats, {different} scores differ, {close} of ties: {'ok' if ok else 'FAILED'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
