# Copyright (c) mmseg_attn contributors.
"""Turn a checkpoint of openseg's ISANet into one of ours.

It then loads in configs/isanet/isanet_r*_4xb*-paper-*.py, or with HRNet in
isanet_hr48_*.py. Takes files of both eras of
https://github.com/openseg-group/openseg.pytorch, and tells by their names
whether they were trained with In-Place ABN. What the config then needs
besides is printed: another activation, attention without a last norm, or
several partitions.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_attn.commands.options import conversion_parser
from mmseg_attn.errors import UserError, run_command
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.apis.conversion import (
        Report,
        convert_file,
        difference,
        plain_norms,
    )
    from mmseg_attn.layers import InterlacedSparseAttention
    from mmseg_attn.layers.interlaced import from_official
    from mmseg_attn.layers.official import fold_biases

# The official name -> ours, by the beginning of the name. A norm is wrapped
# once more where it is not in-place.
NAMES = {
    r'backbone\.resinit\.conv(\d)\.': 'stem',
    r'backbone\.resinit\.bn(\d)\.': 'stem',
    r'backbone\.': 'backbone.',
    r'isa_head\.0\.': 'decode_head.in_conv.conv.',
    r'isa_head\.1\.(?:0\.)?': 'decode_head.in_conv.bn.',
    r'isa_head\.2\.up_conv\.0\.': 'decode_head.up_conv.conv.',
    r'isa_head\.2\.up_conv\.1\.(?:0\.)?': 'decode_head.up_conv.bn.',
    r'isa_head\.2\.conv_bn\.0\.': 'decode_head.out_conv.conv.',
    r'isa_head\.2\.conv_bn\.1\.(?:0\.)?': 'decode_head.out_conv.bn.',
    r'cls_head\.': 'decode_head.conv_seg.',
    r'dsn_head\.0\.': 'auxiliary_head.convs.0.conv.',
    r'dsn_head\.1\.(?:0\.)?': 'auxiliary_head.convs.0.bn.',
    r'dsn_head\.3\.': 'auxiliary_head.conv_seg.',
}
BLOCK = r'isa_head\.2\.stages\.(\d+)\.'


def rename(name: str) -> str | None:
    """Our name of a weight outside the attention, None if there is none."""
    for pattern, replacement in NAMES.items():
        found = re.match(pattern, name)
        if not found:
            continue
        rest = name[found.end() :]
        if replacement == 'stem':
            # conv1, bn1, conv2, ... are 0, 1, 3, 4, 6 and 7.
            place = 3 * (int(found[1]) - 1) + ('.bn' in name)
            return f'backbone.stem.{place}.{rest}'
        return replacement + rest
    return None


def convert(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], Report]:
    """Rename the official weights and put what they mean into ours.

    The host, and we, concatenate attention and input where openseg has input
    and attention: the halves of the weight behind are exchanged. Biases in
    front of norms, of 2019, go into the norms' means.

    Args:
        weights: The official state dict.

    Returns:
        A state dict for ``EncoderDecoder`` with ``mmseg_attn.ISAHead``, and
        what became of each weight.

    Raises:
        UserError: It is not of openseg's ISANet.
    """
    if not any(re.match(BLOCK, name) for name in weights):
        raise UserError(
            'expected weights that begin with isa_head.2.stages.0, got '
            f'{", ".join(list(weights)[:3])}: is it ISANet of openseg?'
        )
    report = Report(len(weights))
    # Other norms lie in a Sequential with their ReLU.
    in_place_norm = 'isa_head.1.running_mean' in weights
    if in_place_norm:
        weights = plain_norms(weights)
        report.notes.append(
            'trained with In-Place ABN: both heads need act_cfg='
            "dict(type='LeakyReLU', negative_slope=0.01)"
        )
    converted, blocks = {}, {}
    for name, value in weights.items():
        block = re.match(BLOCK, name)
        ours = rename(name)
        if block:
            own = blocks.setdefault(int(block[1]), {})
            own[name[block.end() :]] = value
        elif ours is None:
            report.left_out[name] = 'no part of the network'
        else:
            converted[ours] = value
    fold_biases(converted)
    _swap_halves(converted)
    for number, block in sorted(blocks.items()):
        prefix = 'decode_head.'
        if number:
            prefix += f'attentions.{number}.'
        report.compared = max(
            compare(block, in_place_norm), report.compared or 0
        )
        plain = _is_plain(block)
        from_official(block)
        converted |= {prefix + k: v for k, v in block.items()}
    if plain:
        report.notes.append(
            'of 2019: decode_head needs attention=dict(output_norm=False)'
        )
    if len(blocks) > 1:
        report.notes.append(
            f'{len(blocks)} partitions, whose sides the file does not tell: '
            'decode_head needs them as down_factor, such as [(8, 8), (4, 4)]'
        )
    if any(name.startswith('backbone.stage4.') for name in converted):
        report.notes.append(
            'of HRNet: configs/isanet/isanet_hr48_*.py have the activation '
            'and the attention of its checkpoints'
        )
    return converted, report


def _is_plain(block: dict[str, Tensor]) -> bool:
    """Whether no norm follows the last convolutions, as in 2019."""
    return not any('.W.1.' in name for name in block)


def _swap_halves(converted: dict[str, Tensor]) -> None:
    """[x, attention] to [attention, x] in the weight behind both."""
    key = 'decode_head.out_conv.conv.weight'
    if key not in converted:
        raise UserError('"isa_head.2.conv_bn.0.weight" is missing in the file')
    weight = converted[key]
    x, attention = weight.chunk(2, dim=1)
    converted[key] = torch.cat([attention, x], dim=1)


@torch.no_grad()
def compare(official: dict[str, Tensor], in_place_norm: bool) -> float:
    """Our layer with a block's weights against the formulas of openseg.

    Args:
        official: Weights of one block, by their names.
        in_place_norm: Whether its activation is leaky.

    Returns:
        As of :func:`mmseg_attn.apis.conversion.difference`.

    Raises:
        UserError: A weight is missing, or one is not of openseg's block.
    """
    official = {k: v.double() for k, v in official.items()}
    slope = 0.01 if in_place_norm else 0.0
    try:
        key = official['long_range_sa.f_key.0.weight']
        layer = InterlacedSparseAttention(
            key.shape[1],
            key.shape[0],
            official['long_range_sa.W.0.weight'].shape[1],
            partition=(2, 3),
            output_norm=not _is_plain(official),
            act_cfg=dict(type='LeakyReLU', negative_slope=slope),
        )
        layer.double().eval().load_state_dict(dict(official))
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"isa_head.2.stages has not the weights of openseg's blocks: "
            f'{error}; there are {", ".join(official)}'
        ) from error
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(
        1, key.shape[1], 6, 6, dtype=torch.float64, generator=generator
    )
    # Strided grids, then windows, each a small picture.
    grids = x.unflatten(3, (2, 3)).unflatten(2, (3, 2))
    grids = grids.permute(0, 3, 5, 1, 2, 4).reshape(6, -1, 3, 2)
    y = _self_attention(official, 'long_range_sa.', grids, slope)
    y = y.reshape(1, 2, 3, -1, 3, 2).permute(0, 4, 5, 3, 1, 2)
    y = _self_attention(official, 'short_range_sa.', y.flatten(0, 2), slope)
    y = y.reshape(1, 3, 2, -1, 2, 3).permute(0, 3, 1, 4, 2, 5)
    return difference(layer(x), y.reshape(1, -1, 6, 6))


def _self_attention(weights, prefix, x, slope):
    """One block of openseg on (B, C, H, W), by its names."""

    def conv(name, value):
        return F.conv2d(
            value,
            weights[f'{prefix}{name}.weight'],
            weights.get(f'{prefix}{name}.bias'),
        )

    def norm(name, value):
        name = f'{prefix}{name}.'
        if f'{name}running_mean' not in weights:
            name += '0.'
        names = ('running_mean', 'running_var', 'weight', 'bias')
        value = F.batch_norm(value, *(weights[name + n] for n in names))
        return F.leaky_relu(value, slope)

    def guide(name):
        y = norm(f'{name}.1', conv(f'{name}.0', x))
        return norm(f'{name}.3', conv(f'{name}.2', y)).flatten(2)

    query, key = guide('f_query'), guide('f_key')
    value_name = 'f_value'
    if f'{prefix}f_value.weight' not in weights:
        value_name = 'f_value.0'
    value = conv(value_name, x).flatten(2)
    scores = query.mT @ key * query.shape[1] ** -0.5
    out = (value @ scores.softmax(-1).mT).unflatten(2, x.shape[2:])
    out = conv('W.0', out)
    return out if _is_plain(weights) else norm('W.1', out)


def main() -> None:
    args = conversion_parser(__doc__).parse_args()
    convert_file(args.source, args.out, convert)


if __name__ == '__main__':
    run_command(main)
