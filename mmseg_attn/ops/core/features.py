# Copyright (c) mmseg_attn contributors.
"""Feature maps of linear attention, and which attention they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

# Shorter vectors are not scaled to unit length.
MIN_NORM = 1e-6
# Of softplus features of very negative queries the sum underflows: then the
# output is 0 instead of 0 / 0.
MIN_DENOMINATOR = 1e-30


class Feature(NamedTuple):
    """A feature map.

    Attributes:
        map: From x to its features a.
        backward: From (x, a, gradient of a) to the gradient of x.
    """

    map: Callable
    backward: Callable


def _unit_and_one(x):
    unit = F.normalize(x, dim=-1, eps=MIN_NORM)
    return torch.cat([unit, torch.ones_like(x[..., :1])], -1)


def _unit_and_one_backward(x, a, g):
    a, g = a[..., :-1], g[..., :-1]
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    along = a * (a * g).sum(-1, keepdim=True) * (norm > MIN_NORM)
    return (g - along) / norm.clamp_min(MIN_NORM)


def _softmax_backward(x, a, g):
    return torch.ops.aten._softmax_backward_data(g, a, -1, a.dtype)


IDENTITY = Feature(lambda x: x, lambda x, a, g: g)
SOFTMAX = Feature(lambda x: x.softmax(-1), _softmax_backward)
UNIT_AND_ONE = Feature(_unit_and_one, _unit_and_one_backward)
SOFTPLUS = Feature(F.softplus, lambda x, a, g: g * x.sigmoid())


class Rule(NamedTuple):
    """Which attention it is.

    Attributes:
        query, key: Feature maps of the positions' channels.
        over_positions: Whether keys have a softmax over the positions
            instead of a feature map.
        divisor: Number that the context is divided by.
        normalizes: Whether there is a denominator.
        eps: Added to the keys' sum, but not to that of a channel of ones.
        cancels: Whether the last feature is that channel and others are of
            both signs, so that the denominator can cancel to its rounding.
    """

    query: Feature
    key: Feature
    over_positions: bool = False
    divisor: float = 1.0
    normalizes: bool = False
    eps: float = 0.0
    cancels: bool = False

    @property
    def is_mean(self) -> bool:
        """Whether the output is a mean of G's rows: weights add up to 1."""
        positive = self.normalizes and not self.cancels
        return self.over_positions or positive
