"""`harness fetch`: fill the caches in advance, for use without a network."""

from harness.data.glue import GlueHub
from harness.data.glue_hub import is_cached
from harness.data.glue_test import ENTRIES, unlabelled
from harness.data.hub_data import HubData
from harness.data.sources import CustomSource
from harness.data.tasks import Task
from harness.models.backbones import Backbone


def fetch_task(task: Task) -> str:
    """Fetch the data of a task, with its leaderboard test sets, and return a summary.

    Raises: HarnessError if the data are not cached and cannot be downloaded.
    """
    if isinstance(task.source, HubData):
        cached = task.source.is_local()
        counts = [f"{part.split} {len(part.rows):,}" for part in task.source.read(task)]
        return _summary(cached, counts)
    if not isinstance(task.source, GlueHub):
        kind = "the user's files" if isinstance(task.source, CustomSource) else "generated in code"
        return f"{kind}, nothing to fetch"
    entries = [entry for entry in ENTRIES if entry.task == task.name]
    needed = [
        (task.name, task.source.hub_splits),
        *((entry.hub[0], entry.hub[1:]) for entry in entries),
    ]
    cached = all(is_cached(config, splits) for config, splits in needed)
    splits = zip(task.source.hub_splits, task.source.read(task), strict=True)
    counts = [f"{name} {len(split.rows):,}" for name, split in splits]
    for entry in entries:
        name, rows = "ax" if entry.diagnostic else entry.hub[1], unlabelled(entry, None)
        counts.append(f"{name} not available" if rows is None else f"{name} {len(rows):,}")
    return _summary(cached, counts)


def _summary(cached: bool, counts: list[str]) -> str:
    return f"{'already cached' if cached else 'downloaded'} (rows: {', '.join(counts)})"


def fetch_backbone(backbone: Backbone) -> str:
    """Fetch the files of a backbone and return a summary.

    Raises: HarnessError if they are not cached and cannot be downloaded.
    """
    if backbone.random:
        return "random weights, nothing to fetch"
    kind = backbone.source.partition(":")[0]
    cached = backbone.is_local
    _ = backbone.folder, backbone.tokenizer
    if kind != "hub":
        return f"weights are on this machine ({kind}), nothing to fetch"
    return "already cached" if cached else "downloaded"
