# Copyright (c) mmseg_attn contributors.
"""Take an official attention module out of somebody's checkpoint.

The layers here load the authors' modules of Efficient Attention and of the
Linear Attention Mechanism by the same names, whatever network they are in:
name the module's place, and its weights are checked, compared with the
paper's formula and written by themselves::

    attention_module.py net.pth attention.pth EfficientAttention \\
        --prefix backbone.attention. --num-heads 8
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmseg_attn.commands.options import conversion_parser
from mmseg_attn.errors import UserError, run_command
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.apis.conversion import (
        Report,
        convert_file,
        difference,
    )
    from mmseg_attn.layers import (
        ChannelLinearAttention,
        EfficientAttention,
        LinearAttention,
    )

LAYERS = ('EfficientAttention', 'LinearAttention', 'ChannelLinearAttention')


def build(weights: dict[str, Tensor], layer: str, heads: int) -> nn.Module:
    """Build the layer that the shapes of the weights tell of.

    Args:
        weights: By the official names.
        layer: One of ``LAYERS``.
        heads: Of efficient attention; shapes do not tell.

    Returns:
        With the weights, in float64.

    Raises:
        UserError: The weights are not of this module.
    """
    try:
        if layer == 'EfficientAttention':
            keys, values = weights['keys.weight'], weights['values.weight']
            built = EfficientAttention(
                keys.shape[1], len(keys), len(values), num_heads=heads
            )
        elif layer == 'LinearAttention':
            query = weights['query_conv.weight']
            built = LinearAttention(
                query.shape[1], query.shape[1] // len(query)
            )
        else:
            built = ChannelLinearAttention()
        built.double().load_state_dict(dict(weights))
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(
            f'the weights at this prefix are not of {layer}: {error}; there '
            f'are {", ".join(weights) or "none"}'
        ) from error
    return built


@torch.no_grad()
def formula(
    weights: dict[str, Tensor], layer: str, heads: int, x: Tensor
) -> Tensor:
    """The paper's formula, dense, on a map (1, C, H, W)."""
    weights = {k: v.double() for k, v in weights.items()}

    def conv(name, value):
        return F.conv2d(
            value, weights[f'{name}.weight'], weights[f'{name}.bias']
        ).flatten(2)[0]

    if layer == 'EfficientAttention':
        query, key, value = (
            conv(name, x).unflatten(0, (heads, -1))
            for name in ('queries', 'keys', 'values')
        )
        pairs = query.softmax(1).mT @ key.softmax(2)
        out = (value @ pairs.mT).flatten(0, 1).unflatten(1, x.shape[2:])
        return x + conv('reprojection', out[None]).view_as(x)
    if layer == 'LinearAttention':
        names = ('query_conv', 'key_conv', 'value_conv')
        query, key, value = (conv(name, x) for name in names)
        query, key = (v / v.norm(dim=0) for v in (query, key))
        pairs = 1 + query.T @ key
        total = pairs.sum(1) + 1e-6 * query.sum(0)
        return x + weights['gamma'] * (value @ pairs.T / total).view_as(x)
    flat = x.flatten(2)[0]
    unit = flat / flat.norm(dim=0)
    mixed = flat.sum(0) + (flat @ unit.T) @ unit
    total = flat.shape[1] + (unit * (unit.sum(0) + 1e-6)).sum(1)
    return x + weights['gamma'] * (mixed / total[:, None]).view_as(x)


def convert(
    weights: dict[str, Tensor], layer: str, prefix: str, heads: int
) -> tuple[dict[str, Tensor], Report]:
    """Take the weights below a prefix and check them.

    Args:
        weights: All of the checkpoint.
        layer: One of ``LAYERS``.
        prefix: Of the module's weights.
        heads: Of efficient attention.

    Returns:
        A state dict of the layer.

    Raises:
        UserError: The weights are not of this module.
    """
    report = Report(len(weights))
    own = {}
    for name, value in weights.items():
        if name.startswith(prefix):
            own[name.removeprefix(prefix)] = value
        else:
            report.left_out[name] = f'not below {prefix}'
    module = build(own, layer, heads)
    channels = next((v.shape[1] for v in own.values() if v.ndim == 4), 8)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(
        1, channels, 4, 5, dtype=torch.float64, generator=generator
    )
    with torch.no_grad():
        ours = module(x)
    report.compared = difference(ours, formula(own, layer, heads, x))
    return own, report


def main() -> None:
    parser = conversion_parser(__doc__)
    parser.add_argument('layer', choices=LAYERS)
    parser.add_argument('--prefix', default='', help="of the module's names")
    parser.add_argument('--num-heads', type=int, default=1)
    args = parser.parse_args()
    convert_file(
        args.source,
        args.out,
        lambda w: convert(w, args.layer, args.prefix, args.num_heads),
    )


if __name__ == '__main__':
    run_command(main)
