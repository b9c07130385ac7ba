"""The search for a learning rate on `selection`."""

import math
from collections.abc import Callable
from dataclasses import replace

from baselines.training.recipe import Schedule
from harness.data.dataset import TaskData
from harness.errors import IncompleteError
from harness.methods.stages import SEARCH_SEED, FitContext, FittedStage, Stage
from harness.models.backbones import Backbone
from harness.records import Trial


def fit_best_rate(
    stage: Callable[[Schedule], Stage],
    schedules: tuple[Schedule, ...],
    data: TaskData,
    backbone: Backbone,
    context: FitContext,
    parents: Callable[[FitContext], tuple[FittedStage, ...]] = lambda context: (),
) -> tuple[FittedStage, tuple[Trial, ...]]:
    """Fit the stage with the schedule whose best epoch scores highest on `selection`, tried with one fixed seed.

    `parents` gives the stages before it under given circumstances, so that the search stands on parents of its own seed. Dev is never
    looked at. With one schedule nothing is tried. Of the others only the reports are kept.
    Raises: IncompleteError when no schedule gives a finite loss.
    """
    chosen, trials, fresh = schedules[0], tuple[Trial, ...](), set[str]()
    search = context.at_seed(SEARCH_SEED) if len(schedules) > 1 else context
    before = parents(search)
    if len(schedules) > 1:
        fits = [search.try_fit(stage(schedule), data, backbone, before) for schedule in schedules]
        reached = [-math.inf if fit is None else max(fit.stored.report.selection) for fit in fits]
        if max(reached) == -math.inf:
            rates = ", ".join(f"{schedule.learning_rate:g}" for schedule in schedules)
            raise IncompleteError(
                f"{stage(chosen).name}: the loss is not finite with any learning rate of {rates}"
            )
        best = reached.index(max(reached))
        chosen = schedules[best]
        trials = tuple(
            _trial(stage(chosen).name, *tried, tried[0] == chosen)
            for tried in zip(schedules, fits, strict=True)
        )
        fresh = {fit.key for fit in fits if fit is not None and not fit.reused}
        for fit in fits[:best] + fits[best + 1 :]:
            if fit is not None:
                fit.drop_model()
    fitted = context.fitted(
        stage(chosen), data, backbone, before if search is context else parents(context)
    )
    return replace(fitted, reused=fitted.reused and fitted.key not in fresh), trials


def _trial(stage: str, schedule: Schedule, fit: FittedStage | None, chosen: bool) -> Trial:
    if fit is None:
        return Trial(stage, "learning_rate", schedule.learning_rate, None, None, chosen)
    report = fit.stored.report
    return Trial(
        stage,
        "learning_rate",
        schedule.learning_rate,
        max(report.selection),
        report.seconds,
        chosen,
    )
