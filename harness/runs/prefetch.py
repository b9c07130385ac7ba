"""Filling the caches ahead, for a machine without a network: `harness fetch`."""

from huggingface_hub import try_to_load_from_cache

from harness.data.glue import Glue
from harness.data.glue_hub import is_cached
from harness.data.glue_test import ENTRIES, unlabelled
from harness.data.tasks import Task
from harness.models.backbones import Backbone


def fetch_task(task: Task) -> str:
    """What was fetched of a task: its rows, and those that the leaderboard asks about.

    Raises: HarnessError when it is neither cached nor to be had.
    """
    if not isinstance(task.source, Glue):
        return "made in code, nothing to fetch"
    asked = [entry for entry in ENTRIES if entry.task == task.name]
    needed = [
        (task.name, task.source.hub_splits),
        *((entry.hub[0], entry.hub[1:]) for entry in asked),
    ]
    cached = all(is_cached(config, splits) for config, splits in needed)
    splits = zip(task.source.hub_splits, task.source.at(None).read(task), strict=True)
    said = [f"{name} {len(split.rows):,}" for name, split in splits]
    for entry in asked:
        name, rows = "ax" if entry.diagnostic else entry.hub[1], unlabelled(entry, None)
        said.append(f"{name} not to be had" if rows is None else f"{name} {len(rows):,}")
    return (
        f"{'in the cache already' if cached else 'fetched from the hub'} (rows: {', '.join(said)})"
    )


def fetch_backbone(backbone: Backbone) -> str:
    """What was fetched of a backbone.

    Raises: HarnessError when it is neither cached nor to be had.
    """
    kind, _, place = backbone.source.partition(":")
    if kind == "random":
        return "random weights, nothing to fetch"
    cached = kind == "hub" and isinstance(
        try_to_load_from_cache(place, backbone.weights_name, revision=backbone.revision), str
    )
    _ = backbone.folder, backbone.tokenizer
    if kind != "hub":
        return f"its weights are on this machine ({kind}), nothing to fetch"
    return "in the cache already" if cached else "fetched from the hub"
