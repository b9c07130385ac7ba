"""GLUE as its archive has it, and as the hub's own client lays it out in the cache."""

from collections.abc import Sequence
from pathlib import Path

import datasets
from synthetic import HEADERS, Row, write_tsv

from harness.hub import REVISION
from harness.tasks import TASKS

PARSES = ["index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"]
MNLI_TRAIN = [*PARSES, "sentence1", "sentence2", "label1", "gold_label"]
MNLI_DEV = [*PARSES, "sentence1", "sentence2", *(f"label{number}" for number in range(1, 6)), "gold_label"]


def write_glue(folder: Path, task: str, name: str, rows: Sequence[Row]) -> Path:
    """A file `name`.tsv as the GLUE archive has it, of any of the nine tasks."""
    if task in HEADERS:
        return write_tsv(folder, task, name, rows)
    mnli = MNLI_TRAIN if name == "train" else MNLI_DEV
    lines = {
        "qqp": ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"],
        "qnli": ["index\tquestion\tsentence\tlabel"],
        "mnli": ["\t".join(mnli)],
    }[task]
    for number, (texts, label) in enumerate(rows):
        lines += {
            "qqp": [f"{133273 + number}\t{213221 + number}\t{213222 + number}\t{texts[0]}\t{texts[1]}\t{label}"],
            "qnli": [f"{number}\t{texts[0]}\t{texts[1]}\t{label}"],
            "mnli": [
                "\t".join([f"{number}", "31193", "31193n", "fiction", *["( parse )"] * 4, *texts, *["other"] * (len(mnli) - 11), label])
            ],
        }[task]
    path = folder / {"qqp": "QQP", "qnli": "QNLI", "mnli": "MNLI"}[task] / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def glue_rows(task: str, first: int, count: int) -> list[Row]:
    """Every label in turn; a regression's numbers are such as float32 cannot hold."""
    values = TASKS[task].values or ("3.800", "0.25", "4.333", "1.2", "5.000")
    texts = TASKS[task].source.columns
    return [(tuple(f'the "{column} {number}' for column in texts), values[number % len(values)]) for number in range(first, first + count)]


HUB_NAMES = {
    "cola": ["unacceptable", "acceptable"],
    "sst2": ["negative", "positive"],
    "mrpc": ["not_equivalent", "equivalent"],
    "stsb": None,
    "qqp": ["not_duplicate", "duplicate"],
    "mnli": ["entailment", "neutral", "contradiction"],
    "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"],
    "wnli": ["not_entailment", "entailment"],
}
"""The hub's classes in the order of their numbers there."""
HUB_COLUMNS = {
    "cola": ["sentence"],
    "sst2": ["sentence"],
    "qqp": ["question1", "question2"],
    "mnli": ["premise", "hypothesis"],
    "qnli": ["question", "sentence"],
}
"""Other tasks have sentence1 and sentence2."""


def write_parquet(cache: Path, task: str, split: str, rows: Sequence[Row], names: Sequence[str] | None = None, shards: int = 1) -> Path:
    """A split's rows, their labels as the TSV files write them. `names`: other classes than the hub's."""
    folder = cache / "datasets--nyu-mll--glue" / "snapshots" / REVISION / task
    folder.mkdir(parents=True, exist_ok=True)
    columns, classes = HUB_COLUMNS.get(task, ["sentence1", "sentence2"]), names or HUB_NAMES[task]
    label = datasets.Value("float32") if classes is None else datasets.ClassLabel(names=list(classes))
    features = {column: datasets.Value("string") for column in columns} | {"label": label, "idx": datasets.Value("int32")}
    said = dict(zip(TASKS[task].values, TASKS[task].labels, strict=True))
    for shard in range(shards):
        part = rows[shard * len(rows) // shards : (shard + 1) * len(rows) // shards]
        held: dict[str, list[object]] = {column: [texts[place] for texts, _ in part] for place, column in enumerate(columns)}
        held["label"] = [float(word) if classes is None else classes.index(said[word]) for _, word in part]
        held["idx"] = list(range(len(part)))
        path = folder / f"{split}-{shard:05}-of-{shards:05}.parquet"
        datasets.Dataset.from_dict(held, features=datasets.Features(features)).to_parquet(str(path))
    return folder
