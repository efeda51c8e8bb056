# Copyright (c) mmseg_attn contributors.
"""Layers that attend to projections of a map, and what layers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.declare import check_backend
from .arguments import check_counts
from .building import BaseModule
from .layout import channels_first, channels_last, project
from .projected_gpu import Projection, goes_gpu_way
from .residual import Residual

# Defaults of layers whose convolutions have norm and activation.
NORM_CFG = dict(type='BN')
ACT_CFG = dict(type='ReLU')
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def is_changed(conv: nn.Module) -> bool:
    """Whether calling the convolution does more than its parameters say."""
    return type(conv) not in CONVS.values() or bool(
        conv._forward_hooks or conv._forward_pre_hooks
    )


def check_map(layer: nn.Module, x: Tensor, spatial_dims: int = 2) -> None:
    """Refuse what is not a map (B, layer.in_channels, *spatial).

    Args:
        layer: The layer, for its ``in_channels`` and for the message.
        x: What is to be a map.
        spatial_dims: How many spatial axes it is to have.

    Raises:
        ValueError: The rank or number of channels does not fit, or the map
            is empty.
    """
    if x.ndim != 2 + spatial_dims or x.shape[1] != layer.in_channels:
        axes = ('T', 'H', 'W')[-spatial_dims:]
        also = ' and spatial_dims' if hasattr(layer, 'spatial_dims') else ''
        raise ValueError(
            f'{type(layer).__name__} expected a map (B, {layer.in_channels}, '
            f'{", ".join(axes)}), got shape {tuple(x.shape)}. Set in_channels'
            f'{also} to fit the map'
        )
    if not x.numel():
        raise ValueError(
            f'no axis of the map may be empty, got {tuple(x.shape)}'
        )


def check_reduction(layer: str, in_channels: int, reduction: int) -> None:
    """Refuse what leaves query and key without a channel."""
    check_counts(layer, in_channels=in_channels, reduction=reduction)
    if in_channels < reduction:
        raise ValueError(
            f'in_channels must be at least reduction, got in_channels='
            f'{in_channels} and reduction={reduction}: query and key would '
            'have no channel'
        )


def parameters_of(convs: list[nn.Module]) -> list[Tensor]:
    """Weight and bias of each convolution, alternating."""
    return [p for conv in convs for p in (conv.weight, conv.bias)]


def add_attention(
    x: Tensor, gamma: Tensor, attended: Tensor, backend: str | None
) -> Tensor:
    """``x + gamma * attended`` of a map and (B, *spatial, 1, C).

    Args:
        x: Map (B, C, *spatial).
        gamma: The learned factor, one number.
        attended: Output of the attention.
        backend: Backend of the layer.
    """
    if goes_gpu_way(x, backend):
        return Residual.apply(x, gamma, attended)
    attended = channels_first(attended.squeeze(-2), x)
    return torch.addcmul(x, gamma.to(attended.dtype), attended)


@torch.inference_mode(False)
@torch.no_grad()
def transposed_attention(
    attend: Callable, query: Tensor, key: Tensor, weight: Tensor
) -> Tensor:
    """The transposed attention matrix, mean over heads, at weight.

    Args:
        attend: From (query, key, value) to the output, linear in value.
        query, key: (B, *spatial, heads, dim).
        weight: How much each query counts, (B, *spatial), or K such maps,
            (B, K, *spatial).

    Returns:
        How much each key counts, of the same shape.
    """
    heads = query.shape[-2]
    one = weight.ndim == query.ndim - 2
    # Each map is a channel of the value: they share the scores.
    seed = (weight.unsqueeze(1) if one else weight).movedim(1, -1)
    # Copies, for in inference mode nothing has a gradient.
    query, key, seed = query.clone(), key.clone(), seed / heads
    # The gradient of <weight, A v> for v is A^T weight.
    with torch.enable_grad():
        value = query.new_zeros(*seed.shape[:-1], heads, seed.shape[-1])
        value.requires_grad_()
        out = attend(query, key, value)
        seed = seed.unsqueeze(-2).to(out.dtype).expand_as(out)
        (traced,) = torch.autograd.grad(out, value, seed)
    traced = traced.sum(-2).movedim(-1, 1)
    return traced.squeeze(1) if one else traced


def check_weight(x: Tensor, weight: Tensor) -> None:
    """Refuse what is neither (B, *spatial) of a map x nor K such maps."""
    shape = (x.shape[0], *x.shape[2:])
    several = weight.ndim == len(shape) + 1
    if (weight[:, 0] if several else weight).shape != shape:
        raise ValueError(
            f'expected weight (B, *spatial) = {shape}, or (B, K, *spatial), '
            f'got {tuple(weight.shape)}'
        )


def shown(**options: Any) -> str:
    """Options that are not None, for ``extra_repr``."""
    given = ((name, x) for name, x in options.items() if x is not None)
    return ', '.join(f'{name}={x!r}' for name, x in given)


class ProjectedAttention(BaseModule):
    """Base of layers that attend to 1x1 projections of their input.

    Args:
        in_channels: Channels C of the map.
        key_channels: Channels of query and key.
        value_channels: Channels of the value.
        operator: The operator, which takes query, key and value.
        num_heads: Number of heads, which share the channels evenly.
        spatial_dims: 2 for maps (B, C, H, W), 3 for clips (B, C, T, H, W).
        backend: Backend of the operator. None takes the best that can run.
        init_cfg: Initialization, as in mmengine. Without it the convolutions
            start as torch's do, whatever a backbone applied.
        options: Other keyword arguments of the operator.

    Raises:
        ValueError: Numbers of channels that do not fit, an unknown backend.
    """

    # What the convolutions of query, key and value are called.
    projections = ('query_conv', 'key_conv', 'value_conv')

    def __init__(
        self,
        in_channels: int,
        *,
        key_channels: int,
        value_channels: int,
        operator: Callable[..., Tensor],
        num_heads: int = 1,
        spatial_dims: int = 2,
        backend: str | None = None,
        init_cfg: dict | None = None,
        **options: Any,
    ):
        super().__init__(init_cfg)
        if spatial_dims not in CONVS:
            raise ValueError(
                f'spatial_dims must be 1, 2 or 3, got {spatial_dims!r}'
            )
        check_backend(operator.__name__, backend)
        self.in_channels = in_channels
        self.num_heads = num_heads
        self.spatial_dims = spatial_dims
        self.operator = operator
        self.backend = backend
        self.options = dict(options, backend=backend)
        widths = (key_channels, key_channels, value_channels)
        for name, width in zip(self.projections, widths, strict=True):
            conv = CONVS[spatial_dims](in_channels, width, 1)
            self.add_module(name, conv)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # 1x1 weights of a layer for pictures serve clips.
        for name, conv in self.named_children():
            key = f'{prefix}{name}.weight'
            weight = state_dict.get(key)
            if type(conv) not in CONVS.values() or weight is None:
                continue
            same = weight.shape[:2] == conv.weight.shape[:2]
            if same and weight.numel() == conv.weight.numel():
                state_dict[key] = weight.reshape(conv.weight.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def init_weights(self) -> None:
        """Initialise as configured, else undo what a backbone applied."""
        super().init_weights()
        if not self.init_cfg:
            for conv in self.children():
                if type(conv) in CONVS.values():
                    conv.reset_parameters()

    def extra_repr(self) -> str:
        """What a printed layer says beside its convolutions."""
        return shown(
            in_channels=self.in_channels,
            num_heads=self.num_heads,
            spatial_dims=self.spatial_dims,
            **self.options,
        )

    def convs(self) -> list[nn.Module]:
        """Convolutions of query, key and value."""
        return [getattr(self, name) for name in self.projections]

    def project(self, x: Tensor, convs: Sequence[nn.Module]) -> list[Tensor]:
        """Projections (B, *spatial, heads, dim) of a map."""
        if any(map(is_changed, convs)):
            projected = [channels_last(conv(x)) for conv in convs]
        else:
            pixels = channels_last(x)
            projected = [project(pixels, c.weight, c.bias) for c in convs]
        grid = (x.shape[0], *x.shape[2:])
        return [p.reshape(*grid, self.num_heads, -1) for p in projected]

    def branches(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The map for the residual, and query, key and value of it."""
        convs = self.convs()
        if any(map(is_changed, convs)) or not goes_gpu_way(x, self.backend):
            return x, self.project(x, convs)
        x, rows = Projection.apply(x, *parameters_of(convs))
        parts = rows.split([conv.out_channels for conv in convs], -1)
        return x, [p.unflatten(-1, (self.num_heads, -1)) for p in parts]

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The operator with the layer's options."""
        return self.operator(query, key, value, **self.options)

    def trace_attention(self, x: Tensor, weight: Tensor) -> Tensor:
        """Where positions look: the transposed attention matrix at weight.

        For one position, give a weight of 1 there and 0 elsewhere. Chain it
        from the last loop of a recurrent layer to the first for where a
        position looks through all loops. Of several heads it is the mean.
        The residual is not followed.

        Args:
            x: The layer's input, (B, C, *spatial).
            weight: How much each output position counts, (B, *spatial), or K
                such maps at a time, (B, K, *spatial).

        Returns:
            How much each input position counts, of weight's shape. Where the
            weights of each query sum to 1, so does this to weight's sum.

        Raises:
            ValueError: Shapes that do not fit.
        """
        check_map(self, x, self.spatial_dims)
        check_weight(x, weight)
        with torch.no_grad():
            query, key = self.project(x, self.convs()[:2])
        return transposed_attention(self.attend, query, key, weight)
