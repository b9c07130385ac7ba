"""Gradient equilibrium: each layer receives the mean of the gradients of its exits."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from harness.models.multi_exit import MultiExitModel


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return a view of x through which the gradient is multiplied by the factor."""
    if not x.requires_grad:
        return x
    view = x.view_as(x)  # a hook on x would also scale the gradients of its other uses
    view.register_hook(lambda gradient: gradient * factor)
    return view


@contextmanager
def gradient_equilibrium(model: MultiExitModel) -> Iterator[None]:
    """Apply gradient equilibrium to the model within the context.

    Each layer receives the mean, not the sum, of the gradients of the exits (and of the
    hidden-state losses) at or above it. Follows Li et al. (ICCV 2019, section 3.2) as in COST-EFF:
    with l layers, the gradient of the output of layer i, counted from 0, is multiplied by
    1 / (l - i). Exits and losses read that output; where it enters the next layer, its gradient is
    multiplied by l - i - 1. The forward pass is bit-identical.

    Raises: ValueError if layers of the model repeat.
    """
    count = len(model.layers)
    if len(set(model.layers)) < count:
        raise ValueError("gradient equilibrium needs a model whose layers do not repeat")
    handles = []
    for index, layer in enumerate(model.layers):
        if index > 0:
            handles.append(layer.register_forward_pre_hook(partial(_scale_input, count - index)))
        handles.append(layer.register_forward_hook(partial(_scale_output, 1 / (count - index))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _scale_input(factor: float, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return scale_gradient(inputs[0], factor), *inputs[1:]


def _scale_output(
    factor: float, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    return scale_gradient(output, factor)
