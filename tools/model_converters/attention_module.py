# Copyright (c) mmseg_attn contributors.
"""Take an official attention module out of somebody's checkpoint.

The layers here load the authors' modules of Efficient Attention and of the
Linear Attention Mechanism by the same names, whatever network they are in:
name the module's place, and its weights are checked, compared with the
paper's formula and written by themselves::

    attention_module.py net.pth attention.pth EfficientAttention \\
        --prefix backbone.attention. --num-heads 8

What weights do not tell has to be said: the number of heads, and the map of
linear attention's features, which is 'taylor' in the Linear Attention
Mechanism and in MAResU-Net, 'softplus' in MANet. Whole networks of the last
two are converted by maresunet.py.
"""

from functools import partial

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
        linear_attention_formula,
    )
    from mmseg_attn.layers import (
        ChannelLinearAttention,
        EfficientAttention,
        LinearAttention,
    )
    from mmseg_attn.ops.linear import FEATURE_MAPS

# Layer -> what its weights do not tell, and as which option it is asked for.
ASKED = {'EfficientAttention': 'num_heads', 'LinearAttention': 'feature_map'}
LAYERS = ('EfficientAttention', 'LinearAttention', 'ChannelLinearAttention')


def build(weights: dict[str, Tensor], layer: str, options: dict) -> nn.Module:
    """Build the layer that the shapes of the weights tell of.

    Args:
        weights: By the official names.
        layer: One of ``LAYERS``.
        options: What shapes do not tell: see ``ASKED``.

    Returns:
        With the weights, in float64.

    Raises:
        UserError: The weights are not of this module.
    """
    try:
        if layer == 'EfficientAttention':
            keys, values = weights['keys.weight'], weights['values.weight']
            built = EfficientAttention(
                keys.shape[1], len(keys), len(values), **options
            )
        elif layer == 'LinearAttention':
            query = weights['query_conv.weight']
            built = LinearAttention(
                query.shape[1], query.shape[1] // len(query), **options
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
    weights: dict[str, Tensor], layer: str, options: dict, x: Tensor
) -> Tensor:
    """The paper's formula, dense, on a map (1, C, H, W)."""

    def conv(name, value):
        return F.conv2d(
            value, weights[f'{name}.weight'], weights[f'{name}.bias']
        ).flatten(2)[0]

    if layer == 'EfficientAttention':
        query, key, value = (
            conv(name, x).unflatten(0, (options['num_heads'], -1))
            for name in ('queries', 'keys', 'values')
        )
        pairs = query.softmax(1).mT @ key.softmax(2)
        out = (value @ pairs.mT).flatten(0, 1).unflatten(1, x.shape[2:])
        return x + conv('reprojection', out[None]).view_as(x)
    if layer == 'LinearAttention':
        return linear_attention_formula(weights, x, **options)
    flat = x.flatten(2)[0]
    unit = flat / flat.norm(dim=0)
    mixed = flat.sum(0) + (flat @ unit.T) @ unit
    total = flat.shape[1] + (unit * (unit.sum(0) + 1e-6)).sum(1)
    return x + weights['gamma'] * (mixed / total[:, None]).view_as(x)


def convert(
    weights: dict[str, Tensor],
    layer: str,
    prefix: str = '',
    **options: int | str | None,
) -> tuple[dict[str, Tensor], Report]:
    """Take the weights below a prefix and check them.

    They are compared with a gain (gamma) of 1: with 0, at which it starts, any
    attention would pass.

    Args:
        weights: All of the checkpoint.
        layer: One of ``LAYERS``.
        prefix: Of the module's weights.
        options: What weights do not tell, as ``ASKED`` names it.

    Returns:
        A state dict of the layer.

    Raises:
        UserError: The weights are not of this module, or what they do not
            tell is not given.
    """
    asked = ASKED.get(layer)
    if asked and options.get(asked) is None:
        raise UserError(
            f'{layer} needs --{asked.replace("_", "-")}: its weights do not '
            'tell (--help)'
        )
    options = {asked: options[asked]} if asked else {}
    report = Report(len(weights))
    own = {}
    for name, value in weights.items():
        if name.startswith(prefix):
            own[name.removeprefix(prefix)] = value
        else:
            report.left_out[name] = f'not below {prefix}'
    compared = {
        k: torch.ones_like(v) if k == 'gamma' else v for k, v in own.items()
    }
    compared = {k: v.double() for k, v in compared.items()}
    module = build(compared, layer, options)
    channels = next((v.shape[1] for v in own.values() if v.ndim == 4), 8)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(
        1, channels, 4, 5, dtype=torch.float64, generator=generator
    )
    with torch.no_grad():
        ours = module(x)
    expected = formula(compared, layer, options, x)
    report.compared = difference(ours, expected)
    if 'gamma' in own:
        report.notes.append(
            'compared with a gain (gamma) of 1, whatever it is in the file'
        )
    report.notes += [f'the layer needs {k}={v!r}' for k, v in options.items()]
    if layer == 'ChannelLinearAttention':
        report.notes.append(
            'any attention with one gain has these weights: the CAM of '
            'MAResU-Net and MANet is another'
        )
    return own, report


def main() -> None:
    parser = conversion_parser(__doc__)
    parser.add_argument('layer', choices=LAYERS)
    parser.add_argument('--prefix', default='', help="of the module's names")
    parser.add_argument(
        '--num-heads', type=int, help='heads of EfficientAttention'
    )
    parser.add_argument(
        '--feature-map', choices=FEATURE_MAPS, help='of LinearAttention'
    )
    args = parser.parse_args()
    convert_file(
        args.source,
        args.out,
        partial(
            convert,
            layer=args.layer,
            prefix=args.prefix,
            num_heads=args.num_heads,
            feature_map=args.feature_map,
        ),
    )


if __name__ == '__main__':
    run_command(main)
