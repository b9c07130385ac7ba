"""Fine-tuned classifiers of every family predict as the library does, without training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import write_checkpoint
from support.families import FAMILIES, LIBRARY
from support.messages import assert_message

from baselines.checkpoint import CHECKPOINT, checkpoint_config
from baselines.encoders.weights import fine_tuned
from harness.data.dataset import TaskData
from harness.data.loading import load_data
from harness.data.tasks import TASKS, Task
from harness.errors import HarnessError
from harness.files.digests import written_fields
from harness.measure.macs import piece_costs
from harness.methods.stages import FitContext
from harness.models.backbones import find_backbone
from harness.models.batches import collate
from harness.models.label_names import class_names, label_positions

TEXTS = [
    ("anna was happy", "anna smiled"),
    ("ben",),
    ("clara was not sad at all and sang", "clara was"),
]


def task_of_classes(count: int) -> Task:
    names = {1: "stsb", 2: "sst2", 3: "mnli"}
    return TASKS[names[count]]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("case", LIBRARY)
def test_logits_equal_library_in_order(tmp_path: Path, case: str, count: int) -> None:
    """Logits equal the library's, in the task's order of classes."""
    library = write_checkpoint(tmp_path / "it", case, None, count)
    backbone = find_backbone(str(tmp_path / "it"))
    positions = tuple(reversed(range(count)))
    model, report = fine_tuned(
        backbone, checkpoint_config(backbone, task_of_classes(count)), positions
    )
    batch = collate(backbone.encode(TEXTS, 32), np.arange(3))
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
    if case != "distilbert":
        inputs["token_type_ids"] = batch.types
    with torch.no_grad():
        wanted = library(**inputs).logits
        logits = model.eval()(batch).logits
    assert logits.shape == (1, 3, count)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(logits[0], wanted[:, list(positions)], atol=1e-5, rtol=0)
    assert report.fresh == ()
    assert report.loaded == len(
        [name for name in library.state_dict() if "position_ids" not in name]
    )


@pytest.mark.parametrize(
    ("task", "names", "positions"),
    [
        ("sst2", ["negative", "positive"], (0, 1)),
        ("sst2", ["POSITIVE", "Negative"], (1, 0)),
        ("sst2", ["0", "1"], (0, 1)),
        ("sst2", ["1", "0"], (1, 0)),
        ("mrpc", ["equivalent", "not equivalent"], (1, 0)),
        ("mrpc", ["Not-Equivalent ", "EQUIVALENT"], (0, 1)),
        ("mnli", ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], (2, 1, 0)),
        ("wnli", ["entailment", "not_entailment"], (1, 0)),
        ("stsb", ["LABEL_0"], (0,)),
    ],
)
def test_classes_are_matched_by_name(
    task: str, names: list[str], positions: tuple[int, ...]
) -> None:
    """Classes are matched by name, case and punctuation ignored."""
    assert label_positions(names, TASKS[task]) == positions


NFC, NFD = "n\u00e9gatif", "ne\u0301gatif"


@pytest.mark.parametrize(
    ("labels", "names", "positions"),
    [
        (("US", "us"), ["us", "US"], (1, 0)),
        (("--", "-", "o", "+", "++"), ["++", "+", "o", "-", "--"], (4, 3, 2, 1, 0)),
        (("a b", "a-b"), ["a-b", "a b"], (1, 0)),
        ((NFC, "positif"), ["positif", NFD], (1, 0)),
        ((NFD, "positif"), ["POSITIF", NFC.upper()], (1, 0)),
        (("A, B", "C"), ["c", "a, b"], (1, 0)),
    ],
)
def test_equal_names_come_first(
    labels: tuple[str, ...], names: list[str], positions: tuple[int, ...]
) -> None:
    """Names that differ in case or punctuation alone are kept apart; Unicode's forms are not."""
    task = replace(TASKS["sst2"], labels=labels, values=labels)
    assert label_positions(names, task) == positions


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("US", "us"), ["Us", "uS"]),
        (("a b", "a-b"), ["a_b", "A-B"]),
        (("A, B", "C"), ["LABEL_0", "LABEL_1"]),
    ],
)
def test_names_that_fold_together_are_refused(labels: tuple[str, ...], names: list[str]) -> None:
    with pytest.raises(HarnessError) as caught:
        label_positions(names, replace(TASKS["sst2"], labels=labels, values=labels))
    quoted = [f'"{label}"' if "," in label else label for label in labels]
    assert_message(caught, *names, f"--labels {','.join(quoted)}")


@pytest.mark.parametrize(
    ("task", "names", "expected"),
    [
        ("sst2", ["LABEL_0", "LABEL_1"], ["LABEL_0", "LABEL_1", "--labels negative,positive"]),
        ("sst2", ["a", "b", "c"], [3, "a", "b", "c", "sst2", 2, "negative", "positive"]),
        ("mnli", ["negative", "positive"], [2, "negative", "positive", "mnli", 3]),
        ("stsb", ["negative", "positive"], [2, "negative", "positive", "stsb", 1]),
        ("sst2", ["LABEL_0"], [1, "LABEL_0", "sst2", 2]),
        (
            "sst2",
            ["positive", "positive"],
            ["positive", "positive", "sst2", "--labels negative,positive"],
        ),
        ("sst2", ["0", "positive"], [0, "positive", "sst2", "--labels negative,positive"]),
        ("rte", ["0", "1"], [0, 1, "rte", "--labels entailment,not_entailment"]),
    ],
)
def test_unmatched_class_names_are_refused(
    task: str, names: list[str], expected: list[object]
) -> None:
    """Names that do not match the task are refused in one line."""
    with pytest.raises(HarnessError) as caught:
        label_positions(names, TASKS[task])
    assert_message(caught, *expected)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({}, ("LABEL_0", "LABEL_1")),
        ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"id2label": {"1": "yes", "0": "no"}}, ("no", "yes")),
        ({"id2label": {"0": 5}}, ("5",)),
    ],
)
def test_class_names_come_from_config(
    tmp_path: Path, config: dict[str, object], names: tuple[str, ...]
) -> None:
    """Class names are read from config.json."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert class_names(tmp_path) == names


@pytest.mark.parametrize(
    "config",
    [
        {"id2label": {"0": "no", "2": "yes"}},
        {"id2label": ["no", "yes"]},
        {"id2label": "no"},
        {"num_labels": 0},
        {"num_labels": "two"},
        {"num_labels": -1},
        {"problem_type": "multi_label_classification"},
    ],
)
def test_config_without_names_is_refused(tmp_path: Path, config: dict[str, object]) -> None:
    """A config without usable names is refused in one line."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(HarnessError) as caught:
        class_names(tmp_path)
    assert_message(caught, tmp_path / "config.json")


def rows_of(folder: Path) -> TaskData:
    return load_data(TASKS["demo-pair"], None, limit=16).encoded(
        find_backbone(str(folder)).encode, 24
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpoint_method_trains_nothing(tmp_path: Path, context: FitContext, family: str) -> None:
    """The method trains nothing, and MACs include the head."""
    labels = TASKS["demo-pair"].labels
    write_checkpoint(tmp_path / "it", family, labels[::-1])
    backbone, data = find_backbone(str(tmp_path / "it")), rows_of(tmp_path / "it")
    fitted = CHECKPOINT.fit(data, backbone, context)
    (use,) = fitted.uses()
    assert (use.report.rows, use.report.steps, use.report.seconds) == (0, 0, 0.0)
    (head,) = [exit_ for exit_ in piece_costs(fitted.stage.model).exits if exit_ is not None]
    assert head.at(10) == 32 * 32 + 32 * 2
    resolved = CHECKPOINT.resolved(backbone)
    assert (resolved.labels, resolved.fingerprint) == (labels[::-1], backbone.fingerprint)
    named = replace(CHECKPOINT, labels=labels).fit(data, backbone, context)
    assert named.stage.key != fitted.stage.key
    batch = collate(data.dev.tokens, np.arange(4))
    with torch.no_grad():
        torch.testing.assert_close(
            named.stage.model(batch).logits.flip(-1), fitted.stage.model(batch).logits
        )


def test_weights_without_classifier_are_refused(tmp_path: Path, context: FitContext) -> None:
    """Weights without a classifier are refused in one line."""
    write_checkpoint(tmp_path / "it", "bert", TASKS["demo-pair"].labels)
    weights = tmp_path / "it" / "model.safetensors"
    tensors = load_file(weights)
    save_file(
        {name: tensor for name, tensor in tensors.items() if "classifier" not in name}, weights
    )
    with pytest.raises(HarnessError) as caught:
        CHECKPOINT.fit(rows_of(tmp_path / "it"), find_backbone(str(tmp_path / "it")), context)
    assert_message(caught, "it", 2, "classifier.bias", "classifier.weight")
    save_file({**tensors, "classifier.weight": torch.zeros(3, 32)}, weights)
    with pytest.raises(HarnessError) as caught:
        CHECKPOINT.fit(rows_of(tmp_path / "it"), find_backbone(str(tmp_path / "it")), context)
    assert_message(caught, "it", 1, "classifier.weight", [3, 32], [2, 32])


ST_SIGMOID = "torch.nn.modules.activation.Sigmoid"


@pytest.mark.parametrize(
    ("settings", "is_sigmoid"),
    [
        ({"sentence_transformers": {"activation_fn": ST_SIGMOID}}, True),
        ({"sbert_ce_default_activation_function": ST_SIGMOID}, True),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, False),
        ({"sentence_transformers": {"version": "4.0.1"}}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("bounds", [None, (1.0, 3.0)])
def test_cross_encoder_has_its_own_output(
    tmp_path: Path,
    settings: dict[str, object],
    is_sigmoid: bool,
    bounds: tuple[float, float] | None,
) -> None:
    """A cross-encoder's sigmoid is applied and spans the range of the labels."""
    library = write_checkpoint(tmp_path / "it", "bert", None, 1)
    file = tmp_path / "it" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    task, backbone = replace(TASKS["stsb"], bounds=bounds), find_backbone(str(tmp_path / "it"))
    method = CHECKPOINT.resolved(backbone)
    config = checkpoint_config(backbone, task, method.output)
    model, _ = fine_tuned(backbone, config, (0,))
    batch = collate(backbone.encode(TEXTS, 32), np.arange(3))
    with torch.no_grad():
        wanted = library(
            input_ids=batch.ids, attention_mask=batch.mask.long(), token_type_ids=batch.types
        ).logits
        if is_sigmoid:
            low, high = bounds or (0.0, 5.0)
            wanted = low + (high - low) * torch.sigmoid(wanted)
        found = model.eval()(batch).logits[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert piece_costs(model).exits  # every operator has a rule


def test_unsupported_output_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "it", "bert", None, 1)
    file = tmp_path / "it" / "config.json"
    name = "torch.nn.modules.activation.Softplus"
    settings = {"sbert_ce_default_activation_function": name}
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(HarnessError) as caught:
        CHECKPOINT.resolved(find_backbone(str(tmp_path / "it")))
    assert_message(caught, file, name, "Sigmoid")


def test_classifier_keeps_its_logits(tmp_path: Path) -> None:
    """A classifier's output stays linear, and its settings are those of earlier versions."""
    write_checkpoint(tmp_path / "it", "bert", ["negative", "positive"], 2)
    file = tmp_path / "it" / "config.json"
    settings = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    method = CHECKPOINT.resolved(find_backbone(str(tmp_path / "it")))
    assert method.output == "linear"
    assert "output" not in written_fields(method)
