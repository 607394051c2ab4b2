"""What lm-evaluation-harness asks and scores on hand-made items, for crates/eval/tests/harness_requests.rs.

    python tests/python/harness_requests.py crates/eval/tests/harness

Writes the items (FOLDER/TASK/…jsonl, in the layout of the Hub) and expected.json: for each task the harness's own requests, made-up
log-likelihoods of them, and the scores that the harness computes from these. Needs lm_eval (requirements.txt); no model, no network.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"

import lm_eval  # noqa: E402
import pyarrow.parquet  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402

WORDS = "river lamp  copper, \"glass\" naïve 雪 [title] [step] winter's e.g. 3.5% café (small) -".split(" ")
ITEMS = 20


def text(*key, least=1, most=5):
    """A made-up text: words by a hash of the key, with white space and marks that clean-ups have to deal with."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    count = least + digest[0] % (most - least + 1)
    words = [WORDS[byte % len(WORDS)] for byte in digest[1 : 1 + count]]
    return ["", " ", "  "][digest[30] % 3] + " ".join(words) + ["", "", " ", "\n"][digest[31] % 4]


def plain(*key):
    return text(*key).strip() or "river"


def number(*key, below):
    return hashlib.sha256(repr(key).encode()).digest()[9] % below


def arc(name, split, i):
    count = [4, 4, 3, 5][number(name, split, i, "count", below=4)]
    labels = [str(1 + at) for at in range(count)] if i % 5 == 0 else list("ABCDE"[:count])
    texts = [plain(name, split, i, at) for at in range(count)]
    key = labels[number(name, split, i, "gold", below=count)]
    return {"id": f"{name}_{i}", "question": text(name, split, i), "choices": {"text": texts, "label": labels}, "answerKey": key}


def hellaswag(name, split, i):
    endings = [text(name, split, i, at) for at in range(4)]
    activity, a, b = ((text if part else plain)(name, split, i, part) for part in ("", "a", "b"))
    return {"ind": i, "activity_label": activity, "ctx_a": a, "ctx_b": b.swapcase(), "endings": endings, "label": str(number(split, i, below=4))}


def mmlu(name, split, i, subject):
    choices = [text(name, split, i, subject, at) for at in range(4)]
    return {"question": text(name, split, i, subject), "subject": subject, "choices": choices, "answer": number(split, i, subject, below=4)}


def winogrande(name, split, i):
    before, after = plain(name, split, i, 0), text(name, split, i, 1)
    sentence = f"{before} _ {after}" + (" and _ again." if i % 4 == 0 else "")
    return {"sentence": sentence, "option1": plain(name, split, i, 2), "option2": plain(name, split, i, 3), "answer": str(1 + number(split, i, below=2))}


def truthfulqa(name, split, i):
    def targets(kind, truths):
        count = 2 + number(name, split, i, kind, below=4)
        return {"choices": [plain(name, split, i, kind, at) for at in range(truths + count)], "labels": [1] * truths + [0] * count}

    return {"question": text(name, split, i), "mc1_targets": targets("mc1", 1), "mc2_targets": targets("mc2", 1 + i % 3)}


def gsm8k(name, split, i):
    steps = f"First {i} + 2 = <<{i}+2={i + 2}>>{i + 2}.\nThen {text(name, split, i, 1)}"
    return {"question": text(name, split, i), "answer": f"{steps}\n#### {['', '-', '1,'][i % 3]}{100 + i}"}


PIECES = " @-@ , @,@ , @.@ , : , ; , . , ! , ? , , ,( , ),[ , ],{ , },\" , \",' ,s ', = = = = , = = , ° , \n,\n , N , 's , word , 12 ,  ,é ".split(",")


def wikitext(name, split, i):
    draw = hashlib.sha512(repr((name, split, i)).encode()).digest()
    return {"page": "".join(PIECES[byte % len(PIECES)] for byte in draw[: 8 + 2 * i])}


# Task, its rows by split, the number of shots.
TASKS = {
    "arc_easy": ({"train": arc, "validation": arc, "test": arc}, 0),
    "arc_challenge": ({"train": arc, "validation": arc, "test": arc}, 3),
    "hellaswag": ({"train": hellaswag, "validation": hellaswag}, 2),
    "winogrande": ({"train": winogrande, "validation": winogrande}, 2),
    "truthfulqa_mc1": ({"validation": truthfulqa}, 0),
    "truthfulqa_mc2": ({"validation": truthfulqa}, 0),
    "gsm8k": ({"train": gsm8k, "test": gsm8k}, 5),
    "wikitext": ({"test": wikitext}, 0),
}
DEFINITIONS = {
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
    "wikitext": "wikitext/wikitext.yaml",
}
SUBJECTS = ["abstract_algebra", "anatomy", "us_foreign_policy"]


def write(folder, split, rows):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def log_likelihood(context, continuation):
    """Made up, with equal ones now and then."""
    digest = hashlib.sha256(f"{context}\0{continuation}".encode()).digest()
    return -round(1 + 30 * digest[0] / 255 + len(continuation) / 4, 1)


def of_harness(name, files, shots):
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / DEFINITIONS.get(name, f"mmlu/default/{name}.yaml"))
    config.pop("tag", None)
    config |= {"task": name, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    for split in ("training_split", "validation_split"):
        if config.get(split) not in files:
            config.pop(split, None)
    config |= {"num_fewshot": shots, "fewshot_config": {"sampler": "first_n"}}
    task = ConfigurableTask(config=config)
    task.build_all_requests(rank=0, world_size=1)
    items = []
    for doc_id, doc in enumerate(task.eval_docs):
        instances = sorted((one for one in task.instances if one.doc_id == doc_id), key=lambda one: one.idx)
        if task.OUTPUT_TYPE == "generate_until":
            arguments = instances[0].args[1]
            items.append({"requests": [[instances[0].args[0], None]], "until": arguments["until"]})
            continue
        requests = [list(one.args) for one in instances]
        if task.OUTPUT_TYPE == "loglikelihood_rolling":
            scores = task.process_results(doc, [-1.0])
            items.append({"requests": [["", *requests[0]]], "words": scores["word_perplexity"][1], "bytes": scores["byte_perplexity"][1]})
            continue
        sums = [log_likelihood(*request) for request in requests]
        scores = task.process_results(doc, [(value, False) for value in sums])
        items.append({"requests": requests, "log_likelihoods": sums, "scores": {key: float(value) for key, value in scores.items()}})
    return items


def main(folder):
    expected = {}
    for name, (splits, shots) in TASKS.items():
        rows = {split: [make(name, split, i) for i in range(ITEMS if split != "train" else 6)] for split, make in splits.items()}
        files = {split: write(folder / name, split, rows[split]) for split in splits}
        expected[name] = {"shots": shots, "items": of_harness(name, files, shots)}
    everything = {split: [] for split in ("dev", "test")}
    items = []
    for subject in SUBJECTS:
        rows = {split: [mmlu("mmlu", split, i, subject) for i in range(5 if split == "dev" else 7)] for split in everything}
        files = {split: write(folder / "mmlu" / subject, split, rows[split]) for split in rows}
        items += of_harness(f"mmlu_{subject}", files, 3)
        for split in everything:
            everything[split] += rows[split]
            os.remove(files[split])
        (folder / "mmlu" / subject).rmdir()
    for split, rows in everything.items():
        write(folder / "mmlu", split, rows)
    expected["mmlu"] = {"shots": 3, "items": items}
    # The same rows as the Hub stores them: two files, of different compression.
    rows = [json.loads(line) for line in (folder / "arc_easy" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    (folder / "parquet").mkdir(exist_ok=True)
    for part, compression in enumerate(("snappy", "zstd")):
        table = pyarrow.Table.from_pylist(rows[part * 10 : part * 10 + 10])
        pyarrow.parquet.write_table(table, folder / "parquet" / f"test-0000{part}-of-00002.parquet", compression=compression)
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
