"""`harness export`: a run's model in a folder of its own, whole or not at all."""

import shutil
import tempfile
from pathlib import Path

from harness import __version__
from harness.analysis.operating_points import evaluate
from harness.data.custom_tasks import task_of
from harness.errors import HarnessError, IncompleteError, reason
from harness.evaluation.policies import Rule, make_policy
from harness.files.atomic import UNFINISHED
from harness.files.typed_json import to_json
from harness.methods.restore import check_same, model_folder
from harness.models.backbones import Backbone
from harness.models.checkpoint_files import CONFIG, WEIGHTS
from harness.predict.exported import ABOUT, CARD, TOKENIZER, Card
from harness.records import RunRecord
from harness.store.results import ResultsStore


def export(
    store: ResultsStore,
    record: RunRecord,
    rule: Rule,
    backbone: Backbone,
    cache: Path,
    out: Path,
    force: bool,
) -> Card:
    """Write the run's model, tokenizer, card and README to the folder.

    Raises: HarnessError for a folder that is there; IncompleteError when the model is no longer cached, or the disk is full;
    NotComparableError for another backbone than the run's.
    """
    check_free(out, force)
    model = model_folder(record, cache)
    check_same("backbone", backbone.fingerprint, record.data.backbone, record)
    card = make_card(store, record, rule, backbone)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=out.parent) as place:
            beside, before = Path(place) / "new", Path(place) / "old"
            beside.mkdir()
            for name in (CONFIG, WEIGHTS):
                shutil.copyfile(model / name, beside / name)
            (beside / TOKENIZER).write_text(backbone.tokenizer.to_str(), encoding="utf-8")
            (beside / CARD).write_text(to_json(card), encoding="utf-8")
            (beside / ABOUT).write_text(about(card), encoding="utf-8")
            if out.exists():
                out.rename(before)
            beside.rename(out)
    except OSError as error:
        raise IncompleteError(f"cannot write {out}: {reason(error)}") from None
    return card


def check_free(out: Path, force: bool) -> None:
    """Raises: HarnessError when the folder is there, unless it is to be replaced and holds an exported model or nothing."""
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise HarnessError(f"{out} is there: give another --out, or --force to replace it")
    if not out.is_dir() or out.is_symlink() or (any(out.iterdir()) and not (out / CARD).is_file()):
        raise HarnessError(f"{out} is no exported model: --force does not replace it")


def make_card(store: ResultsStore, record: RunRecord, rule: Rule, backbone: Backbone) -> Card:
    """What stands beside the tensors; scores are those of the stored trace under the rule."""
    task = task_of(record)
    last = record.exits[-1]
    scores, macs, layers = (
        {name: last.scores[name] for name in task.metrics},
        last.macs,
        float(last.layer),
    )
    if rule.policy is not None and rule.threshold is not None:
        reached = evaluate(
            record, store.trace(record), make_policy(rule, task.classes), rule.threshold
        )
        scores, macs, layers = reached.scores, reached.macs, reached.layers
    return Card(
        form=1,
        harness=__version__,
        run_id=record.run_id,
        method=record.spec.method,
        task=task.name,
        backbone=record.spec.backbone,
        labels=task.labels,
        texts=task.source.texts,
        metrics=task.metrics,
        max_length=record.spec.max_length,
        shape=backbone.shape,
        rule=rule,
        scores=scores,
        constant_scores={name: record.constant_scores[name] for name in task.metrics},
        macs=round(macs, 1),
        layers=round(layers, 4),
    )


def about(card: Card) -> str:
    """The README of the folder."""
    rule = card.rule
    leaves = (
        "at the last exit"
        if rule.policy is None
        else f"by {rule.policy} at threshold {rule.threshold:g}, each for itself"
    )
    answers = " or ".join(f"`{label}`" for label in card.labels) or "a number"
    rows = [
        f"| {name} | {100 * card.scores[name]:.1f} | {100 * card.constant_scores[name]:.1f} |"
        for name in card.metrics
    ]
    words = '"a text"' if card.texts == 1 else '"a text" "another text"'
    return "\n".join(
        [
            f"# {card.method} on {card.task}",
            "",
            f"`{card.method}` on the backbone `{card.backbone}`, run `{card.run_id}`. Answers {answers}. Rows leave {leaves}; on dev after "
            f"{card.layers:.2f} layers and {card.macs / 1e6:.1f} MMACs on average. Texts are cut at {card.max_length} tokens.",
            "",
            "| on dev, x100 | this model | a constant answer |",
            "|---|---|---|",
            *rows,
            "",
            "```",
            f"harness predict . {words}",
            "```",
            "",
            "The weights derive from the backbone's; its licence and the data's hold.",
            "",
        ]
    )
