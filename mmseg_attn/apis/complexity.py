# Copyright (c) mmseg_attn contributors.
"""Count the operations of a model."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..engine.check_setup import picture_channels
from ..errors import UserError
from ..ops.core import matmul


def count_flops(run: Callable, *args: Any) -> int:
    """Count the floating point operations of a call without gradients.

    Those of matrix products and convolutions, a multiplication and an
    addition being two; what else is done (norms, softmax, resizing) is not
    counted. Attention is counted as it is computed here, not as some dense
    formula would have it.

    Args:
        run: A module or function on tensors of the CPU: the kernels of a GPU
            hide their products.
        args: Its arguments.

    Returns:
        The number.
    """
    return _counted(run, *args).get_total_flops()


def segmentor_flops(
    model: nn.Module, height: int, width: int
) -> dict[str, int]:
    """Count the operations of a segmentor on one picture, up to its logits.

    Args:
        model: A segmentor of mmseg; its training mode is kept. From a GPU it
            is copied, since it runs on the CPU.
        height: Height of the picture, in pixels.
        width: Width of the picture, in pixels.

    Returns:
        As of :func:`count_flops`, of ``backbone``, of ``neck`` where there is
        one, and of ``decode_head``, which is all the rest. Their sum is that
        of the segmentor.

    Raises:
        UserError: The size is not positive.
    """
    if height < 1 or width < 1:
        raise UserError(
            f'expected a positive height and width, got {height} and {width}'
        )
    if next(model.parameters()).device.type != 'cpu':
        model = copy.deepcopy(model).cpu()
    training = model.training
    try:
        picture = torch.zeros(1, picture_channels(model), height, width)
        counter = _counted(model.eval(), picture)
    finally:
        model.train(training)
    counts = counter.get_flop_counts()
    # The segmentors call forward of their heads, past what would be counted
    # under a head's name.
    parts = {
        part: sum(counts.get(f'{type(model).__name__}.{part}', {}).values())
        for part in ('backbone', 'neck')
        if getattr(model, part, None) is not None
    }
    rest = counter.get_total_flops() - sum(parts.values())
    return parts | {'decode_head': rest}


def _counted(run: Callable, *args) -> FlopCounterMode:
    # What it tries out, once, is no work of the call.
    matmul.onednn_works()
    with (
        torch.no_grad(),
        FlopCounterMode(
            display=False, custom_mapping=_onednn_formulas()
        ) as counter,
    ):
        run(*args)
    return counter


def _onednn_formulas() -> dict:
    """Of the product that ops/matmul.py takes and torch does not count."""

    def linear(x, weight, *args, out_shape=None, **kwargs):
        return 2 * torch.Size(x).numel() * weight[0]

    operator = getattr(torch.ops.mkldnn, '_linear_pointwise', None)
    return {operator: linear} if operator else {}
