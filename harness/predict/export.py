"""`harness export`: write a run's model to a folder, atomically."""

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
from harness.methods.registry import model_format
from harness.methods.restore import check_fingerprint, model_folder
from harness.models.backbones import Backbone
from harness.models.checkpoint_files import CONFIG, WEIGHTS
from harness.predict.exported import CARD, README, TOKENIZER, Card
from harness.records import ExitMeasurement, RunRecord
from harness.store.results import ResultsStore


def export(
    store: ResultsStore,
    record: RunRecord,
    rule: Rule,
    backbone: Backbone,
    cache: Path,
    out: Path,
    force: bool,
    layers: int | None = None,
) -> Card:
    """Write the run's model, tokenizer, card and README to the folder.

    With `layers`, the model is the static model of so many layers, else it is the whole model.

    Raises: HarnessError if the folder exists or tokenizer.json cannot store the tokenizer;
    IncompleteError if the model is no longer cached or
    writing fails; NotComparableError if the backbone is not the run's.
    """
    check_free(out, force)
    model = model_folder(record, cache)
    check_fingerprint("backbone", backbone.fingerprint, record.data.backbone, record)
    card = make_card(store, record, rule, backbone, layers)
    tokenizer = backbone.tokenizer.exported(card.max_length)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=out.parent) as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            new.mkdir()
            if layers is None:
                for name in (CONFIG, WEIGHTS):
                    shutil.copyfile(model / name, new / name)
            else:
                model_format().save_truncated(model, layers, new)
            (new / TOKENIZER).write_text(tokenizer, encoding="utf-8")
            (new / CARD).write_text(to_json(card), encoding="utf-8")
            (new / README).write_text(make_readme(card), encoding="utf-8")
            if out.exists():
                out.rename(old)
            new.rename(out)
    except OSError as error:
        raise IncompleteError(f"cannot write {out}: {reason(error)}") from None
    return card


def check_free(out: Path, force: bool) -> None:
    """Check that the folder can be written.

    Raises: HarnessError if it exists, except with `force` if it is empty or an exported model.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise HarnessError(f"{out} exists: give another --out, or --force to replace it")
    if not out.is_dir() or out.is_symlink() or (any(out.iterdir()) and not (out / CARD).is_file()):
        raise HarnessError(f"{out} is not an exported model: --force does not replace it")


def exit_at(record: RunRecord, layers: int) -> ExitMeasurement:
    """Return the run's exit after so many layers.

    Raises: HarnessError if there is none.
    """
    found = {measured.layer: measured for measured in record.exits}
    if layers not in found:
        raise HarnessError(
            f"--exit {layers}: run {record.short_id} ({record.spec.method}) has "
            f"{'an exit' if len(found) == 1 else 'exits'} only after layer "
            f"{', '.join(map(str, found))}"
        )
    return found[layers]


def make_card(
    store: ResultsStore, record: RunRecord, rule: Rule, backbone: Backbone, at_exit: int | None
) -> Card:
    """Return the card, with the scores of the stored trace under the rule or at a fixed exit."""
    task = task_of(record)
    last = record.exits[-1]
    fixed = last if at_exit is None else exit_at(record, at_exit)
    scores = {name: fixed.scores[name] for name in task.metrics}
    macs, layers = fixed.macs, float(fixed.layer)
    if rule.policy is not None and rule.threshold is not None:
        policy = make_policy(rule, task.classes)
        reached = evaluate(record, store.trace(record), policy, rule.threshold)
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
        full_scores={name: last.scores[name] for name in task.metrics},
        full_macs=round(last.macs, 1),
        full_layers=last.layer,
        columns=None if record.own_task is None else record.own_task.columns,
        label_column=None if record.own_task is None else record.own_task.label,
        values=task.values,
        label_range=task.label_range if task.regression else None,
    )


def make_readme(card: Card) -> str:
    """Return the README of an exported model."""
    rule = card.rule
    if rule.policy is not None:
        exits = f"Each example exits on its own by {rule.policy} at threshold {rule.threshold:g}"
    elif card.layers != card.full_layers:
        exits = f"It is the static model of the first {card.layers:g} of {card.full_layers} layers"
    else:
        exits = "Every example runs to the last exit"
    output = " or ".join(f"`{label}`" for label in card.labels) or "a number"
    baseline = "majority class" if card.labels else "mean label"
    full = {} if card.other_full_scores is None else {"full model": card.other_full_scores}
    columns = {"this model": card.scores} | full | {baseline: card.constant_scores}
    scores = [
        f"| {name} | {' | '.join(f'{100 * column[name]:.1f}' for column in columns.values())} |"
        for name in card.metrics
    ]
    texts = '"a text"' if card.texts == 1 else '"a text" "another text"'
    return "\n".join(
        [
            f"# {card.method} on {card.task}",
            "",
            f"This is `{card.method}` on the backbone `{card.backbone}`, run `{card.run_id}`."
            f" It predicts {output}. {exits}; on dev, the mean is {card.layers:.2f} layers and"
            f" {card.macs / 1e6:.1f} MMACs. Texts are truncated to {card.max_length} tokens.",
            "",
            f"| on dev, x100 | {' | '.join(columns)} |",
            "|---" * (len(columns) + 1) + "|",
            *scores,
            "",
            "```",
            f"harness predict . {texts}",
            "```",
            "",
            "The weights derive from the backbone's; the licences of backbone and data apply.",
            "",
        ]
    )
