"""GLUE files in the format of its archive, and in the layout of the hub's cache."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import datasets

from harness.data.dataset import Split, TaskData
from harness.data.glue import GLUE, GlueFiles
from harness.data.glue_hub import REVISION
from harness.data.loading import load_data, make_split
from harness.data.tasks import TASKS

Row = tuple[tuple[str, ...], str]
"""One or two texts, and the label as written in the file."""

HEADERS = {
    "cola": None,
    "sst2": "sentence\tlabel",
    "mrpc": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "stsb": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2"
    "\tsentence1\tsentence2\tscore",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "wnli": "index\tsentence1\tsentence2\tlabel",
}
FOLDERS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "rte": "RTE",
    "wnli": "WNLI",
}
LINES: dict[str, Callable[[int, tuple[str, ...], str], str]] = {
    "cola": lambda number, texts, label: f"gj04\t{label}\t*\t{texts[0]}",
    "sst2": lambda number, texts, label: f"{texts[0]} \t{label}",
    "mrpc": lambda number, texts, label: (
        f"{label}\t{7000 + number}\t{8000 + number}\t{texts[0]}\t{texts[1]}"
    ),
    "stsb": lambda number, texts, label: (
        f"{number}\tcaptions\tMSRvid\t2012\t{number:04}\tnone\tnone\t{texts[0]}\t{texts[1]}\t{label}"
    ),
    "rte": lambda number, texts, label: f"{number}\t{texts[0]}\t{texts[1]}\t{label}",
    "wnli": lambda number, texts, label: f"{number}\t{texts[0]}\t{texts[1]}\t{label}",
}


def write_tsv(
    folder: Path, task: str, split: str, rows: Iterable[Row], newline: str = "\n", end: str = "\n"
) -> Path:
    """Write a file in the format of the GLUE archive."""
    header = HEADERS[task]
    lines = [] if header is None else [header]
    lines += [LINES[task](number, texts, label) for number, (texts, label) in enumerate(rows)]
    path = folder / FOLDERS[task] / f"{split}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((newline.join(lines) + end).encode())
    return path


def load_tsv(
    folder: Path,
    task: str,
    train: Sequence[Row],
    dev: Sequence[Row] | None = None,
    rows: int | None = None,
    limit: int | None = None,
) -> TaskData:
    """Write and load both files; dev defaults to the first two rows of train."""
    write_tsv(folder, task, "train", train)
    write_tsv(folder, task, "dev", train[:2] if dev is None else dev)
    return load_data(TASKS[task], folder, rows, limit)


def singles(count: int, share: float = 0.3) -> list[Row]:
    """Return distinct sentences, this share of them with label 1."""
    return [
        ((f"sentence {number} stands alone",), "1" if number * share % 1 < share else "0")
        for number in range(count)
    ]


def pairs(count: int) -> list[Row]:
    return [
        ((f"premise {number}", f"claim {number}"), "entailment" if number % 2 else "not_entailment")
        for number in range(count)
    ]


PARSES = [
    "index",
    "promptID",
    "pairID",
    "genre",
    "sentence1_binary_parse",
    "sentence2_binary_parse",
    "sentence1_parse",
    "sentence2_parse",
]
MNLI_TRAIN = [*PARSES, "sentence1", "sentence2", "label1", "gold_label"]
MNLI_DEV = [
    *PARSES,
    "sentence1",
    "sentence2",
    *(f"label{number}" for number in range(1, 6)),
    "gold_label",
]


def write_glue(folder: Path, task: str, name: str, rows: Sequence[Row]) -> Path:
    """Write `name`.tsv in the format of the GLUE archive, for any of the nine tasks."""
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
            "qqp": [
                f"{133273 + number}\t{213221 + number}\t{213222 + number}"
                f"\t{texts[0]}\t{texts[1]}\t{label}"
            ],
            "qnli": [f"{number}\t{texts[0]}\t{texts[1]}\t{label}"],
            "mnli": [
                "\t".join(
                    [
                        f"{number}",
                        "31193",
                        "31193n",
                        "fiction",
                        *["( parse )"] * 4,
                        *texts,
                        *["other"] * (len(mnli) - 11),
                        label,
                    ]
                )
            ],
        }[task]
    path = folder / {"qqp": "QQP", "qnli": "QNLI", "mnli": "MNLI"}[task] / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def glue_rows(task: str, first: int, count: int) -> list[Row]:
    """Return rows with every label in turn; regression labels are not exact in float32."""
    values = TASKS[task].values or ("3.800", "0.25", "4.333", "1.2", "5.000")
    texts = TASKS[task].source.columns
    return [
        (tuple(f'the "{column} {number}' for column in texts), values[number % len(values)])
        for number in range(first, first + count)
    ]


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
"""Class names on the hub, in the order of their numbers there."""


def read_tsv(task: str, path: Path) -> Split:
    """Read an official file of a GLUE task, whose name says whether it is train or dev."""
    files = GLUE[task].at(path.parent.parent)
    assert isinstance(files, GlueFiles)
    return make_split(TASKS[task], files.read_file(TASKS[task], path))


HUB_COLUMNS = {
    "cola": ["sentence"],
    "sst2": ["sentence"],
    "qqp": ["question1", "question2"],
    "mnli": ["premise", "hypothesis"],
    "qnli": ["question", "sentence"],
}
"""Text columns on the hub; other tasks have sentence1 and sentence2."""


def write_parquet(
    cache: Path,
    task: str,
    split: str,
    rows: Sequence[Row],
    names: Sequence[str] | None = None,
    shards: int = 1,
) -> Path:
    """Write a split; labels are as in the TSV files. `names` replaces the hub's classes."""
    datasets.disable_progress_bars()  # their output would count as the command's
    folder = cache / "datasets--nyu-mll--glue" / "snapshots" / REVISION / task
    folder.mkdir(parents=True, exist_ok=True)
    columns, classes = HUB_COLUMNS.get(task, ["sentence1", "sentence2"]), names or HUB_NAMES[task]
    label = (
        datasets.Value("float32") if classes is None else datasets.ClassLabel(names=list(classes))
    )
    features = {column: datasets.Value("string") for column in columns} | {
        "label": label,
        "idx": datasets.Value("int32"),
    }
    label_names = dict(zip(TASKS[task].values, TASKS[task].labels, strict=True))
    for shard in range(shards):
        part = rows[shard * len(rows) // shards : (shard + 1) * len(rows) // shards]
        values: dict[str, list[object]] = {
            column: [texts[index] for texts, _ in part] for index, column in enumerate(columns)
        }
        values["label"] = [
            float(word) if classes is None else classes.index(label_names[word]) for _, word in part
        ]
        values["idx"] = list(range(len(part)))
        path = folder / f"{split}-{shard:05}-of-{shards:05}.parquet"
        datasets.Dataset.from_dict(values, features=datasets.Features(features)).to_parquet(
            str(path)
        )
    return folder
