"""Pinned data fingerprints and stage keys, and how their committed files are made.

`PYTHONPATH=.:tests python -m support.pins GLUE_FOLDER` rewrites both files. They change only when
records are added or a revision is raised.
"""

import json
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch

from baselines.bert import BERT
from harness.data import demo
from harness.data.corpus import Corpus
from harness.data.dataset import TaskData
from harness.data.loading import load_data
from harness.data.tasks import TASKS
from harness.files.typed_json import to_json
from harness.methods.compute import Compute
from harness.methods.registry import METHODS, model_format
from harness.methods.settings import configure, parse_setting
from harness.methods.stages import FitContext
from harness.models.backbones import Backbone
from harness.models.shapes import bert_shape
from harness.records import RunRecord, StageReport, WeightsReport
from harness.store.results import ResultsStore
from harness.store.stage_cache import MODEL, STORED, Stored, unfinished_stage

HERE = Path(__file__).parents[1]
RESULTS = HERE.parent / "results"
PINNED_DATA, PINNED_STAGES = (
    HERE / "fixtures" / "pinned_data.json",
    HERE / "fixtures" / "pinned_stages.json",
)

CASES = (
    *METHODS,
    "bert all.tolerance=0.2 bert.batch_size=8 bert.accumulation=2",
    "deebert bert.epochs=2",
    "pabee pabee.learning_rates=1e-3",
    "costeff costeff.exits_from=pruning",
    "costeff costeff.exits_from=recovery",
    "costeff costeff.rounds=one",
    "costeff 'costeff.importance=last exit'",
    "costeff costeff.equilibrium=false",
    "costeff costeff.allocation=global",
    "costeff costeff.mac_ratio=4",
    "costeff costeff.parameter_ratio=3",
    "costeff costeff.pooling=cls costeff.last_states=2 costeff.combine=average",
    "costeff all.effort=0.3 all.taylor_share=0.25 costeff.growth=1.5",
    "tinybert tinybert.general=false",
    "tinybert tinybert.augmentation=0",
    "tinybert tinybert.attention=false tinybert.hidden=false tinybert.embedding=false",
    "tinybert tinybert.prediction=false tinybert.hidden=false",
    "distilbert distilbert.pretraining=false",
    "distilbert distilbert.layers=1 distilbert.temperature=3",
)
"""Every method with its defaults and its switches: method and settings in shell syntax."""


def data_name(record: RunRecord) -> str:
    """Return what the examples of a record depend on besides the files."""
    spec = record.spec
    return (
        f"{spec.task} train_rows={spec.train_rows} max_length={spec.max_length} limit={spec.limit}"
    )


def pinned_data(glue: Path) -> dict[str, dict[str, str]]:
    """Return data fingerprints of the committed records; run ids need them, records lack them."""
    found = {}
    for folder in (RESULTS, RESULTS / "ablations"):
        for record in ResultsStore(folder).records()[0]:
            data = load_data(
                TASKS[record.spec.task], glue, record.spec.train_rows, record.spec.limit
            )
            data = replace(data, max_length=record.spec.max_length)
            assert data.data_fingerprint == record.data.data, data_name(record)
            found[data_name(record)] = {"rows": data.data_fingerprint, "all": data.fingerprint}
    return dict(sorted(found.items()))


def micro_backbone(folder: Path) -> Backbone:
    """Return a backbone of 4 layers x 32 with two learning rates to search.

    Its folder holds fixed bytes, for methods that need a folder with weights.
    """
    vocabulary = demo.demo_vocabulary()
    shape = bert_shape(4, 32, 4, 64, vocabulary=len(vocabulary), positions=64)
    folder.mkdir(parents=True)
    config = {"model_type": "bert", "id2label": {"0": "not_entailment", "1": "entailment"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"no method reads these weights")
    return Backbone(
        "micro", shape, "mean", f"folder:{folder}", "none needed", (1e-3, 1e-4), epochs=1
    )


def pinned_stages(case: str, context: FitContext) -> list[str]:
    """Return name and key of every stage that a method fits, in order.

    Nothing is trained: each stage is a random model and all scores are equal, so that the keys are
    the same on every processor.
    """
    name, *settings = shlex.split(case)
    method = configure([name], [parse_setting(setting) for setting in settings])[name]
    fitted: list[str] = []

    def pretend(
        self: FitContext,
        stage: object,
        data: TaskData,
        backbone: Backbone,
        parents: object,
        folder: Path,
    ) -> None:
        fitted.append(f"{stage.name} {folder.name}")
        unfinished = unfinished_stage(folder)
        (unfinished / MODEL).mkdir(parents=True)
        torch.manual_seed(1)
        model_format().save_model(BERT.build(backbone, TASKS["demo-pair"]), unfinished / MODEL)
        report = StageReport(1, 1, 0.0, 0.0, (0.0,), 1, stage.name, folder.name)
        (unfinished / STORED).write_text(
            to_json(Stored(report, WeightsReport(0, (), ()))), encoding="utf-8"
        )
        unfinished.replace(folder)

    backbone = micro_backbone(context.cache / "backbone")
    vectors = context.cache / "vectors.txt"
    vectors.write_text("good 1 0\ngreat 0.9 0.1\nhappy 0 1\nglad 0.1 0.9\n", encoding="utf-8")
    data = load_data(TASKS["demo-pair"], None, limit=48).encoded(backbone.encode, 32)
    with patch.object(FitContext, "_fit", pretend):
        method.resolved(backbone).fit(
            data, backbone, replace(context, corpus=Corpus(limit=40), vectors=vectors)
        )
    return fitted


def main(glue: Path) -> None:
    """Write both files."""
    PINNED_DATA.write_text(json.dumps(pinned_data(glue), indent=1) + "\n", encoding="utf-8")
    stages = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            context = FitContext(
                1,
                Compute(torch.device("cpu"), "float32", threads=1),
                Path(folder) / "cache",
                model_format(),
            )
            stages[case] = pinned_stages(case, context)
    PINNED_STAGES.write_text(json.dumps(stages, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
