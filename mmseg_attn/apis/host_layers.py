# Copyright (c) mmseg_attn contributors.
"""How the weights of a layer's attention are traced, the hosts' among them."""

from collections.abc import Callable
from functools import partial

from mmcv.cnn.bricks import NonLocal2d
from torch import Tensor, nn

from ..layers.projected import transposed_attention
from ..ops import non_local_attention


def tracer_of(layer: nn.Module) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Find what traces a layer.

    Args:
        layer: Any module.

    Returns:
        Its ``trace_attention`` or, of mmcv's non-local block with a softmax
        and without pooling, the same for it. None where there is no map.
    """
    found = getattr(layer, 'trace_attention', None)
    if found is None and isinstance(layer, NonLocal2d):
        softmax = layer.mode in ('gaussian', 'embedded_gaussian')
        # Pooled keys are no cells of the map.
        if softmax and not layer.sub_sample:
            found = partial(_trace_non_local, layer)
    return found


def _trace_non_local(layer: NonLocal2d, x: Tensor, weight: Tensor) -> Tensor:
    query, key, scale = x, x, 1.0
    if layer.mode == 'embedded_gaussian':
        query, key = layer.theta(x), layer.phi(x)
        if layer.use_scale:
            scale = query.shape[1] ** -0.5
    query, key = (p.movedim(1, -1).unsqueeze(-2) for p in (query, key))
    attend = partial(non_local_attention, scale=scale)
    return transposed_attention(attend, query, key, weight)
