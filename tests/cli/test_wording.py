"""The wording of the command line, in one text file per command under __snapshots__.

`make snapshots` rewrites these files. Codes, names and figures of messages are tested elsewhere.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support import gate_runs
from support.checkpoints import LABELS, predict_always, write_checkpoint
from support.command_line import RunCli
from support.custom_tasks import reviews, write_csv, write_task
from support.families import write_words
from support.glue_files import glue_rows, write_glue, write_parquet
from support.stored_runs import DYNAMIC, REGRESSION, SINGLE, store_run
from support.synthetic import make_timing, write_bert
from support.transcript import TextFile, Transcript
from syrupy.assertion import SnapshotAssertion

from harness.__main__ import main
from harness.cli.app import cli
from harness.models import backbones
from harness.store.results import ResultsStore

FITTED = "--results-dir fitted --cache-dir cache"
QUICK = """\
tasks = "demo-pair"
backbone = "tiny"
limit = 8
threads = 1
precision = "fp32"
latency = false
results-dir = "new"
cache-dir = "cache"
"""


@pytest.fixture
def snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(TextFile)


def clear_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove options that are set in the user's environment."""
    for name in [name for name in os.environ if name.startswith("HARNESS_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored runs, a cached model, files of GLUE and of a custom task, an exported model."""
    folder = tmp_path_factory.mktemp("wording")
    for record, classes in ((SINGLE, 2), (DYNAMIC, 2), (REGRESSION, 1)):
        store_run(folder / "results", record, classes)
    for name, first, count in (("train", 0, 450), ("dev", 1_000, 20)):
        write_glue(folder / "glue", "rte", name, glue_rows("rte", first, count))
    (folder / "glue" / "RTE" / "test.tsv").write_text(
        "index\tsentence1\tsentence2\n0\ta film\ta fine film\n"
    )
    (folder / "quick.toml").write_text(QUICK)
    words = f"run --config {folder}/quick.toml --data-dir {folder}/glue -q"
    words += " --methods deebert --tasks rte --epochs 1"
    with pytest.MonkeyPatch.context() as patched:
        clear_variables(patched)
        assert (
            main(
                [
                    *words.split(),
                    "--results-dir",
                    str(folder / "fitted"),
                    "--cache-dir",
                    str(folder / "cache"),
                ]
            )
            == 0
        )
    write_task(folder / "mine", {"dev": None, "dev_share": "0.1"})
    write_csv(folder / "mine" / "train.csv", reviews(500))
    shutil.copytree(Path(__file__).parents[1] / "fixtures" / "exported_small", folder / "my-model")
    return folder


@pytest.fixture
def transcript(
    prepared: Path,
    tmp_path: Path,
    run_cli: RunCli,
    hub_cache: Path,
    own_folders: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Transcript:
    """Commands in a copy of the prepared folder, without a network, in 110 columns."""
    clear_variables(monkeypatch)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setattr(backbones, "is_installed", lambda path: True)
    shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    (record,), _ = ResultsStore(Path("fitted")).records()
    return Transcript(run_cli, record.run_id)


def test_wording_of_harness(
    transcript: Transcript, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcript.run("--help", "", "rnu", "--sedes")
    monkeypatch.setenv("HARNESS_RUN_SEED", "5")
    transcript.run("flops bert --backbone tiny")
    assert transcript.text == snapshot


def test_wording_of_list(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    transcript.run(
        "list --help",
        "list methods",
        "list methods bert",
        "list tasks",
        "list backbones",
        "list runs",
    )
    transcript.run(
        "list runs --results-dir nowhere", "list methodes", "list methods costef", "list tasks mrpc"
    )
    (Path("results") / "rte" / "bert" / SINGLE.run_id / "record.json").write_text("{")
    transcript.run("list runs")
    assert transcript.text == snapshot


def test_wording_of_run(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    transcript.run("run --help")
    transcript.show("quick.toml")
    quick = "run --config quick.toml"
    transcript.run(f"{quick} --methods bert,deebert --epochs 1 --dry-run")
    transcript.run(
        f"{quick} --methods bert,deebert --epochs 1",
        f"{quick} --methods bert --epochs 1",
        trained=True,
    )
    transcript.run(f"{quick} --methods bert --tasks rte,qqp --data-dir glue --dry-run")
    write_checkpoint(Path("checkpoint"), "bert", LABELS)
    write_words(Path("checkpoint"))
    predict_always(Path("checkpoint"), 0)
    transcript.run(
        f"{quick} --checkpoint checkpoint --tasks demo-single --max-length 32", trained=True
    )
    for mistake in (
        "--methods brt",
        "--methods ,",
        "--tasks demo-pear",
        "--backbone tyni",
        "--seeds 1,two",
        "--train-rows demo-pair",
        "--train-rows demo-pair=999999",
        "--max-length 129",
        "--device tpu",
        "--sedes 1",
        "--labels good,bad",
        "--set bert.epoch=3",
        "--set bert.epochs=many",
        "--set bert.epochs=0",
        "--set epochs=3",
        "--set tinybert.epochs=3",
        "--tasks mrpc --offline",
        "--tasks mrpc --data-dir nowhere",
        "--corpus words.txt",
        "--glove words.txt",
        "--checkpoint checkpoint --labels good",
    ):
        transcript.run(f"{quick} {mistake}")
    assert transcript.text == snapshot


TASK_MISTAKES: tuple[dict[str, str | None], ...] = (
    {"name": None},
    {"name": '"mrpc"'},
    {"lables": '["a", "b"]'},
    {"train": '"none.csv"'},
    {"dev_share": "1.5"},
    {"label": '"likd"'},
    {"labels": '["no", "perhaps"]'},
    {"metrics": '"acuracy"'},
    {"metrics": '"evaluate:wer"'},
    {"regression": "true", "labels": None},
)


def test_wording_of_files(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    """Mistakes in the files that `harness run` reads."""
    quick = "run --config quick.toml --methods bert --dry-run"
    transcript.run(f"{quick} --task-file mine/mytask.toml")
    for changes in TASK_MISTAKES:
        path = write_task(Path("mine"), {"dev": None, "dev_share": "0.1"} | changes)
        transcript.show(str(path))
        transcript.run(f"{quick} --task-file {path}")
    for line in (
        "seedz = 1",
        "seeds = 1979-05-27",
        "seeds = 'one'",
        "set = {bert = {epochz = 2}}",
        "set = 'bert'",
    ):
        Path("grid.toml").write_text(f"{line}\n")
        transcript.show("grid.toml")
        transcript.run("run --config grid.toml --methods bert --dry-run")
    for row in ("", "0\ta\tb\n", "0\ta\tb\tperhaps\n"):
        Path("glue/RTE/train.tsv").write_text(f"index\tsentence1\tsentence2\tlabel\n{row}")
        transcript.show("glue/RTE/train.tsv")
        transcript.run(f"{quick} --tasks rte --data-dir glue")
    assert transcript.text == snapshot


def test_wording_of_show(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    transcript.run(
        "show --help",
        *(f"show {one.run_id}" for one in (SINGLE, DYNAMIC, REGRESSION)),
        "show 0000",
        "show",
    )
    assert transcript.text == snapshot


def test_wording_of_rerun(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    transcript.run(
        "rerun --help",
        "rerun 0000",
        f"rerun {SINGLE.run_id}",
        "rerun RUN_ID --results-dir fitted --out-dir again --cache-dir cache",
    )
    assert transcript.text == snapshot


def test_wording_of_plot(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    transcript.run(
        "plot --help",
        "plot --out picture.svg",
        "plot",
        "plot --out picture.gif",
        "plot --out picture.svg --y acuracy",
        "plot --out picture.svg --tasks mprc",
        "plot --out picture.svg --results-dir nowhere",
        "plot --out picture.svg --kind histogram --budget 1/8",
    )
    assert transcript.text == snapshot


def test_wording_of_report(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    transcript.run(
        "report --help",
        "report",
        "report --budget 100MMAC --tasks rte",
        "report --differences-from bert --tasks rte",
    )
    Path("page.md").write_text("# Page")
    for mistake in (
        "--tasks rte,mprc",
        "--tasks rte,cola --format csv",
        "--methods brt",
        "--methods costeff",
        "--reference brt",
        "--format html",
        "--into missing.md",
        "--into page.md",
        "--into page.md --format csv",
        "--budget 10",
        "--budget 10ms --differences-from bert",
        "--differences-from pabee",
        "--results-dir nowhere",
    ):
        transcript.run(f"report {mistake}")
    assert transcript.text == snapshot


def test_wording_of_check(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    run = gate_runs.record()
    gate_runs.save(Path("old"), run, gate_runs.trace())
    for seed, data in ((1, run.data), (2, replace(run.data, data="d1"))):
        other = replace(
            run, spec=replace(run.spec, seed=seed), data=data, parameters=run.parameters + 1
        )
        gate_runs.save(Path("new"), other, gate_runs.trace(wrong=60))
        gate_runs.save(
            Path("old"), replace(run, spec=replace(run.spec, seed=seed)), gate_runs.trace()
        )
    gate_runs.save(Path("old"), replace(run, spec=replace(run.spec, seed=3)), gate_runs.trace())
    transcript.run(
        "check --help",
        "check --baseline b.json --results-dir old",
        "check --baseline b.json --results-dir old --update",
    )
    transcript.run("check --baseline b.json --results-dir old")
    for form in ("text", "markdown", "github", "junit"):
        transcript.run(f"check --baseline b.json --results-dir new --format {form}")
    transcript.run(
        "check --baseline b.json --results-dir nowhere",
        "check --baseline b.json --results-dir nowhere --update",
    )
    transcript.run(
        "check --baseline b.json --results-dir new --update",
        "check --baseline grid.toml --results-dir new",
        "check",
    )
    for text in (
        "{",
        "[]",
        '{"schema": 3, "runs": []}',
        '{"schema": 2, "runs": [], "more": 1}',
        '{"name": "my-package"}',
    ):
        Path("other.json").write_text(text)
        transcript.run("check --baseline other.json --results-dir new")
    transcript.run("check --baseline other.json --results-dir new --update")
    assert transcript.text == snapshot


def test_wording_of_sweep(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    transcript.run(
        "sweep --help",
        "sweep d1e0 --points 3",
        "sweep 4e90 --points 2",
        "sweep d1e0 --points 3 --format csv",
        "sweep",
    )
    for mistake in (
        "abcd",
        "ab",
        "51e0",
        "4e90 --policy entropy",
        "d1e0 --policy entropie",
        "d1e0 --tolerance 0.2",
        "d1e0 --points 1",
    ):
        transcript.run(f"sweep {mistake}")
    (Path("results") / "rte" / "deebert" / DYNAMIC.run_id / "trace.npz").write_bytes(b"PK")
    transcript.run("sweep d1e0")
    assert transcript.text == snapshot


def test_wording_of_time(
    transcript: Transcript, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcript.run(
        "time --help",
        "time d1e0",
        "time 51e0 --threshold 0.3",
        "time d1e0 --threshold 0.3 --cache-dir nowhere",
    )
    transcript.run(
        "time d1e0 --threshold 0.3 --policy patience",
        "time d1e0 --threshold 1.5 --policy confidence",
    )
    monkeypatch.setattr(
        "harness.measure.live.time_run", lambda record, *_: make_timing(record.run_id, 0.3)
    )
    transcript.run("time d1e0 --threshold 0.3")
    assert transcript.text == snapshot


def test_wording_of_flops(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    transcript.run(
        "flops --help",
        "flops deebert --backbone tiny --length 32",
        "flops bert --backbone tiny --format csv",
        "flops",
    )
    for mistake in (
        "brt",
        "bert --task rtee",
        "bert --task glue",
        "bert --backbone tyni",
        "bert --length 513",
        "bert --set bert.heads=3",
    ):
        transcript.run(f"flops {mistake}")
    assert transcript.text == snapshot


def test_wording_of_fetch(
    transcript: Transcript,
    snapshot: SnapshotAssertion,
    online: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for split in ("train", "validation", "test"):
        write_parquet(online, "wnli", split, glue_rows("wnli", 0, 4))
    capsys.readouterr()  # discard the library's progress
    transcript.run(
        "fetch --help",
        "fetch --tasks demo,wnli --backbone tiny",
        "fetch --tasks rte --backbone bert-large-uncased --offline",
    )
    transcript.run("fetch", "fetch --tasks gleu", "fetch --backbone tyni")
    assert transcript.text == snapshot


def test_wording_of_cache(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    transcript.run(
        "cache --help", "cache list --help", "cache prune --help", "cache list --cache-dir nowhere"
    )
    transcript.run(
        f"cache list {FITTED}",
        f"cache prune --all --dry-run {FITTED}",
        f"cache prune --unused {FITTED}",
        "cache prune",
    )
    transcript.run("cache prune --unused --results-dir nowhere", f"cache prune --all {FITTED}")
    assert transcript.text == snapshot


def test_wording_of_export(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    write_bert(Path("mine"))
    transcript.run("export --help")
    transcript.run(f"export RUN_ID --out out {FITTED}", trained=True)
    transcript.show("out/README.md", trained=True)
    for mistake in (
        "--out out",
        "--out glue --force",
        "--out more --threshold -1",
        "--out more --budget-share 0.01",
        "--out more --threshold 0.1 --budget-share 0.5",
        "--out more --backbone ./mine",
        "",
    ):
        transcript.run(f"export RUN_ID {mistake} {FITTED}")
    transcript.run("export 51e0 --out more --cache-dir nowhere")
    assert transcript.text == snapshot


def test_wording_of_predict(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    Path("rows.tsv").write_text("a\tb\tc\n")
    Path("rows.jsonl").write_text('{"second": "b"}\n')
    transcript.run("predict --help")
    transcript.run(
        'predict my-model "a fine film" "a dull one"',
        f"predict my-model {'film ' * 30}",
        trained=True,
    )
    for mistake in (
        "my-model",
        "my-model a --file rows.tsv",
        "my-model --file nowhere.txt",
        "my-model --file rows.tsv",
        "my-model --file rows.jsonl",
        "my-model --file grid.toml",
        "nowhere a",
    ):
        transcript.run(f"predict {mistake}")
    assert transcript.text == snapshot


def test_wording_of_submit(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    transcript.run("submit --help")
    for words in (
        "RUN_ID --out a.zip",
        "RUN_ID --out a.zip",
        "RUN_ID RUN_ID --out b.zip",
        "RUN_ID --out b.tar",
        "--out b.zip",
        "RUN_ID --out b.zip --threshold -1",
        "RUN_ID --out b.zip --data-dir nowhere",
    ):
        transcript.run(f"submit --data-dir glue {FITTED} {words}")
    transcript.run(
        "submit d1e0 --out b.zip --data-dir glue --cache-dir nowhere", "submit abcd --out b.zip"
    )
    assert transcript.text == snapshot


def test_wording_of_schema(transcript: Transcript, snapshot: SnapshotAssertion) -> None:
    transcript.run("schema --help", "schema timing", "schema trace")
    assert transcript.text == snapshot


def test_every_command_has_its_file() -> None:
    """Every snapshot file belongs to a command."""
    names = {
        path.stem
        for path in (Path(__file__).parent / "__snapshots__" / Path(__file__).stem).iterdir()
    }
    assert names == {f"test_wording_of_{name}" for name in ("harness", "files", *cli.commands)}
