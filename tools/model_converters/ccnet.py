# Copyright (c) mmseg_attn contributors.
"""Turn a checkpoint of the authors' CCNet code into one of ours.

It then loads in configs/ccnet/ccnet_r*_4xb2-paper-*.py. Takes the files of
every branch of https://github.com/speedinghzl/CCNet.
"""

import re

import torch
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
    from mmseg_attn.layers import CrissCrossAttention
    from mmseg_attn.layers.official import fold_biases

# The authors' name -> ours, by the beginning of the name.
NAMES = {
    r'conv1\.': 'backbone.stem.0.',
    r'bn1\.': 'backbone.stem.1.',
    r'conv2\.': 'backbone.stem.3.',
    r'bn2\.': 'backbone.stem.4.',
    r'conv3\.': 'backbone.stem.6.',
    r'bn3\.': 'backbone.stem.7.',
    r'layer': 'backbone.layer',
    r'head\.conva\.0\.': 'decode_head.convs.0.conv.',
    r'head\.conva\.1\.': 'decode_head.convs.0.bn.',
    r'head\.cca\.gamma$': 'decode_head.cca.gamma.scale',
    r'head\.cca\.': 'decode_head.cca.',
    r'head\.convb\.0\.': 'decode_head.convs.1.conv.',
    r'head\.convb\.1\.': 'decode_head.convs.1.bn.',
    r'head\.bottleneck\.0\.': 'decode_head.conv_cat.conv.',
    r'head\.bottleneck\.1\.': 'decode_head.conv_cat.bn.',
    r'head\.bottleneck\.3\.': 'decode_head.conv_seg.',
    r'dsn\.0\.': 'auxiliary_head.convs.0.conv.',
    r'dsn\.1\.': 'auxiliary_head.convs.0.bn.',
    r'dsn\.3\.': 'auxiliary_head.conv_seg.',
}


def convert(
    weights: dict[str, Tensor], plain_norm: bool = False
) -> tuple[dict[str, Tensor], Report]:
    """Rename the authors' weights, and turn In-Place ABN into batch norm.

    In-Place ABN scales by ``|weight| + 1e-5``, which becomes the weight. It
    does not count batches, by which ordinary norms are told. The auxiliary
    head's first convolution has a bias in front of a norm, which is
    subtracted from the running mean.

    Args:
        weights: The authors' state dict.
        plain_norm: Whether it was trained with ordinary batch norm. Default:
            False.

    Returns:
        A state dict for ``EncoderDecoder`` with ``mmseg_attn.DeepStemResNet``
        and ``mmseg_attn.CCHead``, and what became of each weight.

    Raises:
        UserError: If a name is none of theirs, or the attention is missing.
    """
    weights = {re.sub(r'^module\.', '', k): v for k, v in weights.items()}
    report = Report(len(weights))
    if any(name.endswith('.num_batches_tracked') for name in weights):
        plain_norm = True
        report.notes.append('the norms are ordinary ones: they count batches')
    if not plain_norm:
        weights = plain_norms(weights)
    converted = {}
    for name, value in weights.items():
        for pattern, replacement in NAMES.items():
            ours, count = re.subn(f'^{pattern}', replacement, name)
            if count:
                break
        else:
            raise UserError(
                f'"{name}" is no weight of the authors\' CCNet; expected '
                'names that begin with conv1-3, bn1-3, layer1-4, head, dsn'
            )
        if ours.endswith('gamma.scale'):
            value = value.reshape(())
        converted[ours] = value
    fold_biases(converted)
    attention = {
        name.removeprefix('head.cca.'): value
        for name, value in weights.items()
        if name.startswith('head.cca.')
    }
    try:
        report.compared = compare(attention)
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f'the weights of head.cca are not those of CCNet: {error}; there '
            f'are {", ".join(attention) or "none"}'
        ) from error
    return converted, report


@torch.no_grad()
def compare(weights: dict[str, Tensor]) -> float:
    """Our layer with the authors' weights against their formula, dense.

    Args:
        weights: Of the attention, by their names.

    Returns:
        As of :func:`mmseg_attn.apis.conversion.difference`.
    """
    weights = {k: v.double() for k, v in weights.items()}
    channels = len(weights['value_conv.weight'])
    reduction = channels // len(weights['query_conv.weight'])
    layer = CrissCrossAttention(channels, reduction).double()
    layer.load_state_dict(dict(weights))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(
        1, channels, 4, 5, dtype=torch.float64, generator=generator
    )
    query, key, value = (
        torch.nn.functional.conv2d(
            x, weights[f'{n}_conv.weight'], weights[f'{n}_conv.bias']
        ).flatten(2)[0]
        for n in ('query', 'key', 'value')
    )
    rows, columns = torch.arange(20) // 5, torch.arange(20) % 5
    crossed = (rows[:, None] == rows) | (columns[:, None] == columns)
    scores = (query.T @ key).masked_fill(~crossed, -torch.inf)
    attended = (value @ scores.softmax(-1).T).view_as(x)
    return difference(layer(x), x + weights['gamma'].squeeze() * attended)


def main() -> None:
    parser = conversion_parser(__doc__)
    parser.add_argument(
        '--plain-norm',
        action='store_true',
        help='trained with ordinary batch norm instead of In-Place ABN, by '
        'code too old to count batches: later files tell',
    )
    args = parser.parse_args()
    convert_file(args.source, args.out, lambda w: convert(w, args.plain_norm))


if __name__ == '__main__':
    run_command(main)
