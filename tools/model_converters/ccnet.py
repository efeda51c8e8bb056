# Copyright (c) mmseg_attn contributors.
"""Turn a checkpoint of the authors' CCNet code into one of ours.

It then loads in configs/ccnet/ccnet_r*_4xb2-paper-*.py. Takes the files of
every branch of https://github.com/speedinghzl/CCNet.
"""

import argparse
import re
from pathlib import Path

import torch
from torch import Tensor

from mmseg_attn.apis.checkpoint import load_checkpoint
from mmseg_attn.apis.files import whole
from mmseg_attn.errors import UserError, run_command

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
    r'dsn\.0\.weight': 'auxiliary_head.convs.0.conv.weight',
    r'dsn\.1\.': 'auxiliary_head.convs.0.bn.',
    r'dsn\.3\.': 'auxiliary_head.conv_seg.',
}
ABN_EPS = 1e-5


def convert(
    weights: dict[str, Tensor], plain_norm: bool = False
) -> dict[str, Tensor]:
    """Rename the authors' weights, and turn In-Place ABN into batch norm.

    In-Place ABN scales by ``|weight| + 1e-5``, which becomes the weight. The
    auxiliary head's first convolution has a bias in front of a norm, which
    is subtracted from the running mean.

    Args:
        weights (dict[str, Tensor]): The authors' state dict.
        plain_norm (bool): Whether it was trained with ordinary batch norm.
            Default: False.

    Returns:
        dict[str, Tensor]: A state dict for ``EncoderDecoder`` with
        ``mmseg_attn.DeepStemResNet`` and ``mmseg_attn.CCHead``.

    Raises:
        UserError: If a name is none of theirs.
    """
    weights = {re.sub(r'^module\.', '', k): v for k, v in weights.items()}
    bias = weights.pop('dsn.0.bias', None)
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
        # A norm is what has a running mean beside it.
        norm = name.removesuffix('weight') + 'running_mean' in weights
        if name.endswith('.weight') and norm and not plain_norm:
            value = value.abs() + ABN_EPS
        converted[ours] = value
    if bias is not None:
        key = 'auxiliary_head.convs.0.bn.running_mean'
        converted[key] = converted[key] - bias
    return converted


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', type=Path, help="the authors' checkpoint")
    parser.add_argument('out', type=Path, help='checkpoint to write')
    parser.add_argument(
        '--plain-norm',
        action='store_true',
        help='trained with ordinary batch norm instead of In-Place ABN',
    )
    args = parser.parse_args()
    if args.out.exists():
        raise UserError(f'{args.out} exists; give another name')
    weights = load_checkpoint(args.source)
    for key in ('state_dict', 'model'):
        weights = weights.get(key, weights)
    converted = convert(weights, args.plain_norm)
    with whole(args.out) as partial:
        torch.save({'state_dict': converted, 'meta': {}}, partial)
    print(f'{args.out}: {len(converted)} tensors')


if __name__ == '__main__':
    run_command(main)
