"""Bad input files of every kind: one line names file, position and value; nothing is written."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from support.command_line import QUICK, RunCli, assert_one_line
from support.custom_tasks import reviews, write_csv, write_task
from support.glue_files import pairs, singles, write_tsv
from support.messages import figures
from support.stored_runs import DYNAMIC, SINGLE, store_run
from support.synthetic import BERT_CONFIG, TouchesAFile, everything_under, write_bert

from harness.models.backbones import find_backbone
from harness.models.checkpoint_files import WEIGHTS
from harness.report.overview import BEGIN, END
from harness.store.results import RECORD

pytestmark = pytest.mark.usefixtures("own_folders")
RUN = ["run", "--methods", "bert", *QUICK]
OWN, ON_TSV, ON_BERT = (
    [*RUN, *words]
    for words in (
        ["--task-file", "own/mytask.toml"],
        ["--data-dir", "glue"],
        ["--tasks", "demo-pair", "--backbone", "./mine"],
    )
)
ON_SST2, GRID = [*ON_TSV, "--tasks", "sst2"], ["run", "--config", "grid.toml"]
STORED = Path("stored") / "rte" / "deebert" / DYNAMIC.run_id


CONFIG = BERT_CONFIG | {"max_position_embeddings": 128}


class Bad(NamedTuple):
    """A bad file, and how a command must report it."""

    name: str
    make: Callable[[], object]
    words: list[str]
    names: list[object]
    """Words, paths and figures in the error line."""
    code: int = 2
    cell_started: bool = False
    """Whether the cell had started, so that a last line counts the failed cells."""


def custom_task(
    content: bytes | None = None, file: str = "train.csv", **changes: str | None
) -> Callable[[], None]:
    """Write a custom task with `changes` of its task file, and `content` in one of its files."""

    def make() -> None:
        folder = write_task(Path("own"), changes).parent
        write_csv(folder / "train.csv", reviews(500))
        write_csv(folder / "dev.csv", reviews(20, 900))
        if content is not None:
            (folder / file).write_bytes(content)

    return make


def set_file(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def glue(task: str, content: bytes | None, split: str = "train") -> Callable[[], None]:
    """Write GLUE's folder with this content in one of its files; None removes the file."""

    def make() -> None:
        rows = pairs(500) if task == "rte" else singles(500)
        paths = {name: write_tsv(Path("glue"), task, name, rows) for name in ("train", "dev")}
        set_file(paths[split], content)

    return make


def bert(name: str, content: bytes | None) -> Callable[[], None]:
    """Write a BERT's folder with this content in one of its files; None removes the file."""

    def make() -> None:
        set_file(write_bert(Path("mine"), CONFIG) / name, content)

    return make


def bert_config(**changes: object) -> Callable[[], None]:
    def make() -> None:
        path = write_bert(Path("mine"), CONFIG) / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return make


def template_of_nothing() -> None:
    """Write a tokenizer on which the library fails at the first text, not at reading."""
    tokenizer = json.loads(find_backbone("tiny").tokenizer.exported(8))
    tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"] = "[NONE]"
    bert("tokenizer.json", json.dumps(tokenizer).encode())()
    plain = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (Path("mine") / "tokenizer_config.json").write_text(json.dumps(plain))


def pickled_weights() -> None:
    (write_bert(Path("mine"), CONFIG) / WEIGHTS).unlink()
    (Path("mine") / "pytorch_model.bin").write_bytes(pickle.dumps(TouchesAFile(Path("touched"))))


def file(name: str, content: bytes) -> Callable[[], None]:
    def make() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)

    return make


def stored(name: str, change: Callable[[bytes], bytes]) -> Callable[[], None]:
    """Store a run with one of its files changed."""

    def make() -> None:
        store_run(Path("stored"), DYNAMIC)
        path = STORED / name
        path.write_bytes(change(path.read_bytes()))

    return make


def record(**changes: object) -> Callable[[], None]:
    return stored(RECORD, lambda content: json.dumps(json.loads(content) | changes).encode())


TASK_FILES = [
    Bad("task file that is not there", lambda: None, OWN, ["own/mytask.toml"]),
    Bad(
        "task file that is no TOML",
        custom_task(b"name = ", "mytask.toml"),
        OWN,
        ["own/mytask.toml", "TOML"],
    ),
    Bad(
        "task file that is not UTF-8",
        custom_task(b'name = "\xff"', "mytask.toml"),
        OWN,
        ["own/mytask.toml", "TOML"],
    ),
    Bad(
        "key that does not exist",
        custom_task(lables='["no", "yes"]'),
        OWN,
        ["own/mytask.toml", "lables", "labels"],
    ),
    Bad(
        "metric that does not exist",
        custom_task(metrics='"acuracy"'),
        OWN,
        ["own/mytask.toml", "acuracy", "accuracy"],
    ),
    Bad(
        "metric that is others' code",
        custom_task(metrics='["accuracy", "evaluate:squad"]'),
        OWN,
        ["own/mytask.toml", "metrics", "evaluate:squad", "--allow-metric-code"],
    ),
    Bad(
        "name of a task that exists",
        custom_task(name='"sst2"'),
        OWN,
        ["own/mytask.toml", "name", "sst2"],
    ),
    Bad(
        "data file that is not there",
        custom_task(train='"trian.csv"'),
        OWN,
        ["own/mytask.toml", "train", "own/trian.csv"],
    ),
    Bad(
        "column that is not there",
        custom_task(text='"reveiw"'),
        OWN,
        ["train.csv", "reveiw", "review"],
    ),
    Bad(
        "label that is not named",
        custom_task(b"review,liked\ngood,maybe\n"),
        OWN,
        [("own/train.csv", 2, "maybe", "no", "yes")],
    ),
    Bad(
        "row of another width",
        custom_task(b"review,liked\ngood,yes,really\n"),
        OWN,
        [("own/train.csv", 2, 3, 2)],
    ),
    Bad("data file without rows", custom_task(b"review,liked\n"), OWN, ["own/train.csv"]),
    Bad(
        "half of a character",
        custom_task(
            b'{"review": "x \\ud800", "liked": "yes"}\n', "train.jsonl", train='"train.jsonl"'
        ),
        OWN,
        ["own/train.jsonl", 1, "review", r"\ud800"],
    ),
    Bad(
        "label that does not show",
        custom_task(labels='["no", "y\\u0007s"]'),
        OWN,
        ["own/mytask.toml", "labels", "values"],
    ),
    Bad(
        "data file that is not UTF-8",
        custom_task(b"review,liked\n\xff,yes\n"),
        OWN,
        ["own/train.csv", "UTF-8"],
    ),
    Bad("too few rows", custom_task(b"review,liked\na,yes\nb,no\n"), OWN, [("reviews", 2, 400)]),
    Bad(
        "JSONL that is no JSON",
        custom_task(b"{", "rows.jsonl", train='"rows.jsonl"'),
        OWN,
        ["own/rows.jsonl", 1, "JSON"],
    ),
    Bad(
        "Parquet that is none",
        custom_task(b"PAR1", "rows.parquet", train='"rows.parquet"'),
        OWN,
        ["own/rows.parquet", "Parquet"],
    ),
]

GRID_FILES = [
    Bad("grid file that is not there", lambda: None, GRID, ["grid.toml"]),
    Bad("grid file that is no TOML", file("grid.toml", b"methods = ["), GRID, ["grid.toml"]),
    Bad(
        "grid file that is too deep",
        file("grid.toml", b"methods = " + b"[" * 5000),
        GRID,
        ["grid.toml"],
    ),
    Bad(
        "lists in lists",
        file("grid.toml", b"methods = " + b"[" * 50 + b"]" * 50),
        GRID,
        ["grid.toml", "methods", 20],
    ),
    Bad("number without end", file("grid.toml", b"limit = " + b"9" * 5000), GRID, ["grid.toml"]),
    Bad(
        "option that does not exist",
        file("grid.toml", b'method = "bert"'),
        GRID,
        ["grid.toml", "method", "methods"],
    ),
    Bad(
        "value of another type", file("grid.toml", b'limit = "plenty"'), GRID, ["--limit", "plenty"]
    ),
    Bad(
        "method that does not exist",
        file("grid.toml", b"[set.brt]\nepochs = 3"),
        GRID,
        ["brt", "bert"],
    ),
]

GLUE_FILES = [
    Bad(
        "header of another task",
        glue("rte", b"sentence\tlabel\nfine\t1\n"),
        [*ON_TSV, "--tasks", "rte"],
        [("glue/RTE/train.tsv", 1, 2, 4)],
    ),
    Bad(
        "line that is cut",
        glue("sst2", b"sentence\tlabel\nfine\n"),
        ON_SST2,
        [("glue/SST-2/train.tsv", 2, 1, 2)],
    ),
    Bad(
        "label of no class",
        glue("sst2", b"sentence\tlabel\nfine\t7\n"),
        ON_SST2,
        [("glue/SST-2/train.tsv", 2, 7, 0, 1)],
    ),
    Bad(
        "rows that are not UTF-8",
        glue("sst2", b"sentence\tlabel\n\xff\t1\n"),
        ON_SST2,
        ["glue/SST-2/train.tsv", "UTF-8"],
    ),
    Bad("no rows", glue("cola", b""), [*ON_TSV, "--tasks", "cola"], ["glue/CoLA/train.tsv"]),
    Bad(
        "no dev file",
        glue("cola", None, "dev"),
        [*ON_TSV, "--tasks", "cola"],
        ["glue/CoLA/dev.tsv", "--data-dir"],
    ),
]

WEIGHTS_FILES = [
    Bad("folder without config.json", bert("config.json", None), ON_BERT, ["mine/config.json"]),
    Bad("config.json that is no JSON", bert("config.json", b"{"), ON_BERT, ["mine/config.json"]),
    Bad(
        "model of another family",
        bert_config(model_type="gpt2"),
        ON_BERT,
        [("mine/config.json", "gpt2", "bert")],
    ),
    Bad(
        "size that is no number",
        bert_config(hidden_size="wide"),
        ON_BERT,
        ["mine/config.json", "hidden_size", "wide"],
    ),
    Bad(
        "heads that do not divide the width",
        bert_config(num_attention_heads=3),
        ON_BERT,
        [("mine/config.json", "hidden_size", 8, "num_attention_heads", 3)],
    ),
    Bad("folder without a vocabulary", bert("vocab.txt", None), ON_BERT, ["mine", "vocab.txt"]),
    Bad(
        "tokenizer that is no JSON",
        bert("tokenizer.json", b"{"),
        ON_BERT,
        ["mine", "tokenizer.json"],
    ),
    Bad(
        "tokenizer whose template names no piece",
        template_of_nothing,
        ON_BERT,
        ["mine", "tokenizer.json"],
    ),
    Bad("folder without weights", bert(WEIGHTS, None), ON_BERT, ["mine", WEIGHTS]),
    Bad(
        "weights that are cut",
        bert(WEIGHTS, b"\x80"),
        ON_BERT,
        ["mine", WEIGHTS],
        cell_started=True,
    ),
    Bad(
        "weights that lack tensors",
        lambda: write_bert(Path("mine"), CONFIG),
        ON_BERT,
        ["mine", 52],
        cell_started=True,
    ),
    Bad("weights that are a pickle", pickled_weights, ON_BERT, ["mine", WEIGHTS]),
    Bad(
        "checkpoint that is not there",
        lambda: None,
        ["run", *QUICK, "--checkpoint", "./mine"],
        ["mine"],
    ),
    Bad(
        "corpus that is not there",
        lambda: None,
        [*RUN, "--methods", "distilbert", "--corpus", "words.txt"],
        ["words.txt"],
    ),
    Bad(
        "corpus without a sentence",
        file("words.txt", b"\n\n"),
        [*RUN, "--methods", "distilbert", "--corpus", "words.txt"],
        ["words.txt"],
    ),
    Bad(
        "vectors without numbers",
        file("glove.txt", b"the one two\n"),
        [*RUN, "--methods", "tinybert", "--glove", "glove.txt"],
        ["--glove", "glove.txt", 1],
    ),
]

STORED_RUNS = ["--results-dir", "stored"]


def page() -> None:
    record()()
    Path("page.md").write_text("# Page")


RECORDS = [
    Bad(
        "record that is cut",
        stored(RECORD, lambda content: content[:-9]),
        ["sweep", "d1e0", *STORED_RUNS],
        [RECORD],
        3,
    ),
    Bad(
        "record of a newer version",
        record(schema=99),
        ["sweep", "d1e0", *STORED_RUNS],
        [(RECORD, 99, 2)],
        3,
    ),
    Bad(
        "record with a field too many",
        record(colour="red"),
        ["sweep", "d1e0", *STORED_RUNS],
        [RECORD, "colour"],
        3,
    ),
    Bad(
        "record of another folder",
        record(run_id="feed" + "0" * 12),
        ["sweep", "d1e0", *STORED_RUNS],
        [RECORD, "feed" + "0" * 12],
        3,
    ),
    Bad(
        "trace that is cut",
        stored("trace.npz", lambda content: content[:99]),
        ["sweep", "d1e0", *STORED_RUNS],
        [STORED / "trace.npz"],
        3,
    ),
    Bad(
        "trace that is no archive",
        stored("trace.npz", lambda _: b"rows"),
        ["sweep", "d1e0", *STORED_RUNS],
        [STORED / "trace.npz"],
        3,
    ),
    Bad(
        "baseline that is not there",
        record(),
        ["check", "--baseline", "base.json", *STORED_RUNS],
        ["base.json", "--update"],
    ),
    Bad(
        "baseline that is no JSON",
        file("base.json", b"{"),
        ["check", "--baseline", "base.json", *STORED_RUNS],
        ["base.json"],
    ),
    Bad(
        "baseline that is another file",
        file("base.json", b'{"schema": 1}'),
        ["check", "--baseline", "base.json"],
        ["base.json"],
    ),
    Bad(
        "report without its markers",
        page,
        ["report", "--into", "page.md", *STORED_RUNS],
        ["page.md", BEGIN, END],
    ),
    Bad(
        "exported folder without its files",
        lambda: Path("mine").mkdir(),
        ["predict", "mine", "fine"],
        ["mine", "harness.json", "harness export"],
    ),
    Bad(
        "model to export that is gone",
        record(),
        ["export", "d1e0", "--out", "model", *STORED_RUNS],
        [DYNAMIC.short_id],
        3,
    ),
]

TABLE = [*TASK_FILES, *GRID_FILES, *GLUE_FILES, *WEIGHTS_FILES, *RECORDS]


@pytest.mark.parametrize("bad", TABLE, ids=[bad.name.replace(" ", "-") for bad in TABLE])
def test_bad_file_is_one_line(run_cli: RunCli, tmp_path: Path, bad: Bad) -> None:
    """A bad file is reported in one line, and nothing is written."""
    bad.make()
    before = everything_under(tmp_path)
    result = run_cli(*bad.words)
    if bad.cell_started:
        assert figures(result.lines[-1]) == [1, 1]
        result = result._replace(err="".join(result.lines[:-1]))
    assert_one_line(result, bad.code, bad.names)
    locks = {path for path in everything_under(tmp_path) if path.endswith(".lock")}
    assert {
        path: content for path, content in everything_under(tmp_path).items() if path not in locks
    } == before


def test_intact_stored_run_is_read(run_cli: RunCli) -> None:
    """The commands of the table read an intact stored run."""
    store_run(Path("stored"), DYNAMIC)
    store_run(Path("stored"), SINGLE)
    assert run_cli("sweep", "d1e0", *STORED_RUNS).code == 0
