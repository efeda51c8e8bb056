# Copyright (c) mmseg_attn contributors.
"""Count the operations of a model."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import UserError


def count_flops(run: Callable, *args) -> int:
    """Count the floating point operations of a call without gradients.

    Those of matrix products and convolutions, a multiplication and an
    addition being two; what else is done (norms, softmax, resizing) is not
    counted. Attention is counted as it is computed here, not as some dense
    formula would have it.

    Args:
        run (Callable): A module or function on tensors.
        *args: Its arguments.

    Returns:
        int: The number.
    """
    with (
        torch.no_grad(),
        FlopCounterMode(
            display=False, custom_mapping=_onednn_formulas()
        ) as counter,
    ):
        run(*args)
    return counter.get_total_flops()


def segmentor_flops(model: nn.Module, height: int, width: int) -> int:
    """Count the operations of a segmentor on one picture, up to its logits.

    Args:
        model (nn.Module): A segmentor of mmseg; its training mode is kept.
        height (int): Of the picture, in pixels.
        width (int): Of the picture, in pixels.

    Returns:
        int: As of :func:`count_flops`.

    Raises:
        UserError: The size is not positive.
    """
    if height < 1 or width < 1:
        raise UserError(
            f'expected a positive height and width, got {height} and {width}'
        )
    device = next(model.parameters()).device
    picture = torch.zeros(1, 3, height, width, device=device)
    training = model.training
    try:
        return count_flops(model.eval(), picture)
    finally:
        model.train(training)


def _onednn_formulas() -> dict:
    """Of the product that ops/_matmul.py takes and torch does not count."""

    def linear(x, weight, *args, out_shape=None, **kwargs):
        return 2 * torch.Size(x).numel() * weight[0]

    operator = getattr(torch.ops.mkldnn, '_linear_pointwise', None)
    return {operator: linear} if operator else {}
