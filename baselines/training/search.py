"""Search for the best learning rate on `selection`."""

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
    """Fit the stage with the schedule whose best epoch scores highest on `selection`.

    The schedules are tried with one fixed seed. `parents` returns the stage's parents in a given
    context, so that the search uses parents of its own seed. The dev split is never used. A single
    schedule needs no trial. Of the rejected schedules only the reports are kept.

    Raises: IncompleteError if no schedule gives a finite loss.
    """
    chosen, trials, newly_fitted = schedules[0], tuple[Trial, ...](), set[str]()
    search = context.with_seed(SEARCH_SEED) if len(schedules) > 1 else context
    search_parents = parents(search)
    if len(schedules) > 1:
        fits = [
            search.try_fit(stage(schedule), data, backbone, search_parents)
            for schedule in schedules
        ]
        scores = [-math.inf if fit is None else max(fit.stored.report.selection) for fit in fits]
        if max(scores) == -math.inf:
            rates = ", ".join(f"{schedule.learning_rate:g}" for schedule in schedules)
            raise IncompleteError(
                f"{stage(chosen).name}: none of the learning rates {rates} gives a finite loss"
            )
        best = scores.index(max(scores))
        chosen = schedules[best]
        trials = tuple(
            _trial(stage(chosen).name, *tried, tried[0] == chosen)
            for tried in zip(schedules, fits, strict=True)
        )
        newly_fitted = {fit.key for fit in fits if fit is not None and not fit.reused}
        for fit in fits[:best] + fits[best + 1 :]:
            if fit is not None:
                fit.drop_model()
    own_parents = search_parents if search is context else parents(context)
    fitted = context.fitted(stage(chosen), data, backbone, own_parents)
    return replace(fitted, reused=fitted.reused and fitted.key not in newly_fitted), trials


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
