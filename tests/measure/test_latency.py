"""Latency to each exit and of live early exit, timed in a child process."""

import io
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray
from support.messages import assert_message, figures, names_all
from support.synthetic import make_job
from torch import nn

from baselines.encoders.encoder import EncoderModel, Head, ModelConfig
from baselines.encoders.weights import save_model
from harness.data.dataset import TaskData
from harness.errors import ExitCode, IncompleteError
from harness.evaluation.policies import Confidence, Entropy, Patience, Policy
from harness.evaluation.trace import Floats
from harness.files.typed_json import from_json
from harness.measure import latency
from harness.measure.inference import predict_early
from harness.measure.latency import (
    LatencyJob,
    LatencySamples,
    measure_exits,
    paired_ratio,
    quartiles,
    run_job,
    timing_batches,
)
from harness.models.backbones import Backbone
from harness.models.batches import collate
from harness.progress import Advance, Progress
from harness.records import ExitMeasurement, Quartiles

QUIET = Progress(-1)


@dataclass(frozen=True)
class Counting:
    """A policy that records how many exits it is given at each call."""

    inner: Policy
    calls: list[int]

    def score(self, seen: Floats) -> NDArray[np.float64]:
        self.calls.append(len(seen))
        return self.inner.score(seen)


def _model(backbone: Backbone, exits: tuple[Head | None, ...] = ("dense",) * 3) -> EncoderModel:
    return EncoderModel(ModelConfig(backbone.shape, "mean", 2, 1.0, exits)).eval()


@pytest.mark.parametrize(
    "policy", [Entropy(), Confidence(), Patience()], ids=lambda policy: policy.name
)
@pytest.mark.parametrize(
    "exits", [("dense",) * 3, ("plain", None, "plain")], ids=["every layer", "some layers"]
)
def test_path_pays_decisions_then_exits(
    micro: Backbone, few_rows: TaskData, policy: Policy, exits: tuple[Head | None, ...]
) -> None:
    """The path to an exit pays for the decisions on the way and exits there."""
    model = _model(micro, exits)
    batch = collate(few_rows.dev.tokens, np.arange(6))
    for index in range(len(model.exit_layers)):
        counting = Counting(policy, [])
        fixed: Policy = latency._ExitAt(counting, index + 1)
        assert predict_early(model, batch, fixed, 0.0).exits.tolist() == [index] * 6
        last = index == len(model.exit_layers) - 1
        assert counting.calls == list(range(1, index + 1 if last else index + 2))


@pytest.fixture(scope="module")
def folders(micro: Backbone, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of a model with exits at layers 1 and 3 and of a reference."""
    model, reference = (tmp_path_factory.mktemp(name) for name in ("model", "reference"))
    save_model(_model(micro, ("dense", None, "dense")), model)
    save_model(_model(micro, (None, None, "dense")), reference)
    return str(model), str(reference)


@pytest.fixture(scope="module")
def job(folders: tuple[str, str], few_rows: TaskData) -> LatencyJob:
    batches = {str(size): timing_batches(few_rows.dev.tokens, size) for size in (1, 4)}
    model, reference = folders
    return make_job(
        model=model,
        reference=reference,
        batches=batches,
        policy="entropy",
        rounds=2,
    )


@pytest.fixture(scope="module")
def samples(job: LatencyJob) -> LatencySamples:
    return run_job(job, QUIET)


def test_child_times_variants_every_round(samples: LatencySamples) -> None:
    """A child process times every variant in every round."""
    assert set(samples.milliseconds) == {"1", "4"}
    for variants in samples.milliseconds.values():
        assert set(variants) == {"reference", "static/1", "path/1", "static/3", "path/3"}
        for values in variants.values():
            assert len(values) == 2
            assert min(values) > 0


def _measured(layers: Sequence[int]) -> list[ExitMeasurement]:
    return [ExitMeasurement(layer, {"accuracy": 0.5}, 1.0, 1, 1, {}, {}) for layer in layers]


def test_exits_get_quartiles_and_ratios(
    monkeypatch: pytest.MonkeyPatch, job: LatencyJob, samples: LatencySamples
) -> None:
    """Exits get their quartiles and their ratios to the reference."""
    given: list[LatencyJob] = []
    monkeypatch.setattr(latency, "run_job", lambda job, progress: given.append(job) or samples)
    exits, conditions = measure_exits(_measured((1, 3)), job, "bert", QUIET)
    assert given == [job]
    for exit_ in exits:
        assert exit_.scores == {"accuracy": 0.5}
        for size, variants in samples.milliseconds.items():
            assert exit_.static_ms[size] == quartiles(variants[f"static/{exit_.layer}"])
            assert exit_.path_ms[size] == quartiles(variants[f"path/{exit_.layer}"])
    for size, variants in samples.milliseconds.items():
        assert conditions.reference_ms[size] == quartiles(variants["reference"])
        assert conditions.reference_ratio[size] == tuple(
            paired_ratio(variants["reference"], variants[f"static/{layer}"]) for layer in (1, 3)
        )
        assert conditions.path_ratio[size] == tuple(
            paired_ratio(variants["reference"], variants[f"path/{layer}"]) for layer in (1, 3)
        )
        assert conditions.tokens[size] == tuple(
            max(len(row) for row in batch) for batch in job.batches[size]
        )
    assert conditions.rounds == {"1": 2, "4": 2}
    assert (conditions.reference, conditions.device, conditions.precision, conditions.threads) == (
        "bert",
        "cpu",
        "float32",
        1,
    )


def test_path_equals_static_without_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without a policy has the same path and static time.

    Only the batches that were timed are in the conditions."""
    samples = LatencySamples({"1": {"static/3": (4.0, 2.0, 3.0)}}, {"1": (1,)})
    monkeypatch.setattr(latency, "run_job", lambda job, progress: samples)
    batches = {"1": (((1, 2),), ((1, 2, 3),))}
    (exit_,), conditions = measure_exits(_measured((3,)), make_job(batches=batches), None, QUIET)
    assert conditions.tokens == {"1": (3,)}
    assert exit_.path_ms == exit_.static_ms == {"1": Quartiles(2.5, 3.0, 3.5)}
    assert (conditions.reference, conditions.reference_ms, conditions.reference_ratio) == (
        None,
        {},
        {},
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_live_exit_is_timed_against_reference(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folders: tuple[str, str],
    few_rows: TaskData,
    precision: str,
) -> None:
    """Live early exit is timed against the reference."""
    model, reference = folders
    batches = {"4": timing_batches(few_rows.dev.tokens, 4)}
    live = make_job(
        model=model,
        reference=reference,
        batches=batches,
        policy="entropy",
        threshold=0.5,
        rounds=3,
    )
    monkeypatch.setattr(
        "sys.stdin", io.StringIO(json.dumps(asdict(replace(live, precision=precision))))
    )
    latency.main()
    samples = from_json(LatencySamples, capsys.readouterr().out, "the output").milliseconds["4"]
    assert {name: len(values) for name, values in samples.items()} == {"reference": 3, "live": 3}


def test_live_exit_falls_back_to_last(micro: Backbone, few_rows: TaskData) -> None:
    """Without a reference, live early exit is timed against the model's last exit."""
    model = _model(micro)
    variants = latency._variants(model, None, make_job(policy="confidence", threshold=1.0))
    batch = collate(few_rows.dev.tokens, np.arange(3))
    assert set(variants) == {"reference", "live"}
    with torch.no_grad():
        reference, live = (variants[name](batch) for name in ("reference", "live"))
    assert reference.logits.shape == (1, 3, 2)
    assert torch.equal(live.logits, reference.logits[0])


def test_static_variant_runs_one_exit(micro: Backbone, few_rows: TaskData) -> None:
    """Static variants run no other layer and no other exit."""
    model = _model(micro)
    ran: list[str] = []
    names: dict[str, nn.Module] = {
        f"layer {i}": layer for i, layer in enumerate(model.layers, start=1)
    }
    names |= {f"exit {int(layer) + 1}": head for layer, head in model.exits.items()}
    for name, module in names.items():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    variants = latency._variants(model, None, make_job(policy="entropy"))
    batch = collate(few_rows.dev.tokens, np.arange(3))
    assert set(variants) == {
        f"{kind}/{layer}" for kind in ("static", "path") for layer in (1, 2, 3)
    }
    seen = {}
    with torch.no_grad():
        for name, variant in variants.items():
            ran.clear()
            variant(batch)
            seen[name] = list(ran)
    assert seen["static/2"] == ["layer 1", "layer 2", "exit 2"]
    assert seen["path/2"] == ["layer 1", "exit 1", "layer 2", "exit 2"]
    assert seen["static/3"] == ["layer 1", "layer 2", "layer 3", "exit 3"]
    assert seen["path/1"] == seen["static/1"] == ["layer 1", "exit 1"]


def _replace_child(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Run another program instead of the timing process."""
    popen = subprocess.Popen

    def run_program(command: list[str], **options: object) -> object:
        assert command == [sys.executable, "-P", "-m", "harness.measure.latency"]
        return popen([sys.executable, "-c", program], **options)

    monkeypatch.setattr(
        latency, "subprocess", SimpleNamespace(Popen=run_program, PIPE=subprocess.PIPE)
    )


@pytest.mark.parametrize(
    ("program", "names"),
    [
        (
            "import sys; print('half'); "
            "print('Traceback', 'ValueError: no such model', sep=chr(10), file=sys.stderr); "
            "sys.exit(3)",
            (3, "ValueError: no such model"),
        ),
        ("import os; os.kill(os.getpid(), 9)", (-9,)),
    ],
    ids=["last line gives the reason", "killed without output"],
)
def test_failing_child_reports_last_line(
    monkeypatch: pytest.MonkeyPatch, program: str, names: tuple[object, ...]
) -> None:
    """A failing child is reported with its last line."""
    _replace_child(monkeypatch, program)
    with pytest.raises(IncompleteError) as caught:
        run_job(make_job(), QUIET)
    message = assert_message(caught, *names, code=ExitCode.INCOMPLETE)
    assert not names_all(message, "half")
    assert "Traceback" not in message


@pytest.mark.slow
def test_child_rounds_advance_progress(job: LatencyJob) -> None:
    """Each round of the child advances the progress."""
    tracked: list[int | None] = []
    notes: list[str] = []

    class RecordingProgress(Progress):
        @contextmanager
        def track(self, label: str, steps: int | None, done: int = 0) -> Iterator[Advance]:
            tracked.append(steps)
            yield lambda note="": notes.append(note)

    run_job(job, RecordingProgress(-1))
    assert tracked == [None]  # their number is not known before
    assert [figures(note) for note in notes] == [[1], [1], [4], [4]]  # batch sizes


@pytest.mark.slow
def test_waiting_timing_is_announced(job: LatencyJob) -> None:
    """A timing that waits for another is announced."""
    announced, lines = threading.Event(), []

    class RecordingProgress(Progress):
        def info(self, line: str) -> None:
            lines.append(line)
            announced.set()

    results: list[LatencySamples] = []
    with FileLock(Path(tempfile.gettempdir()) / "harness-latency.lock", mode=0o666):
        waiting = threading.Thread(target=lambda: results.append(run_job(job, RecordingProgress())))
        waiting.start()
        assert announced.wait(60)
        assert results == []
        assert [len(line.splitlines()) for line in lines] == [1]
    waiting.join(60)
    assert set(results[0].milliseconds) == {"1", "4"}


def test_child_needs_its_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The child fails if the model is missing."""
    monkeypatch.setattr(
        "sys.stdin", io.StringIO(json.dumps(asdict(make_job(model=str(tmp_path / "nothing")))))
    )
    with pytest.raises(IncompleteError) as caught:
        latency.main()
    assert_message(caught, tmp_path / "nothing", code=ExitCode.INCOMPLETE)


def test_invalid_child_output_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invalid output of the child is an incomplete timing."""
    _replace_child(monkeypatch, "print('not json')")
    with pytest.raises(IncompleteError) as caught:
        run_job(make_job(), QUIET)
    assert_message(caught, code=ExitCode.INCOMPLETE)


@pytest.mark.slow
def test_user_folder_gives_no_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, job: LatencyJob
) -> None:
    """The child does not import a harness.py or json.py from the user's folder."""
    for name in ("harness.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong program')")
    monkeypatch.chdir(tmp_path)
    assert set(run_job(job, QUIET).milliseconds) == {"1", "4"}


def test_job_holds_plain_json_values(job: LatencyJob) -> None:
    """A job holds only plain JSON values."""
    kinds = {type(value) for value in asdict(job).values()}
    assert kinds <= {str, int, float, dict, type(None)}
