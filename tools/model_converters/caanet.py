# Copyright (c) mmseg_attn contributors.
"""Turn the head of an official CAA checkpoint (TensorFlow) into ours.

SOURCE is a TensorFlow checkpoint (``.../ckpt-1``, without ``.index``), for
which TensorFlow must be installed, or an ``.npz`` that somebody with
TensorFlow made of it::

    reader = tf.train.load_checkpoint('ckpt-1')
    np.savez('caa.npz', **{n.replace('/', '|'): reader.get_tensor(n)
                           for n in reader.get_variable_to_shape_map()})

The head and the auxiliary head are converted. The backbone is not: its
ResNet strides in other blocks and pads otherwise than the hosts'. The norms
need an epsilon of 1e-3, as in configs/caanet.
"""

import re
from pathlib import Path

import numpy as np
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
    )
    from mmseg_attn.layers import ChannelizedAxialAttention

BLOCK = 'seg_head/ca_blocks/0/'
ATTENTION = 'decode_head.attention.'
# Their object -> our module.
MODULES = {
    'seg_head/entry_convbnrelu': 'decode_head.entry_conv',
    **{
        BLOCK + name: ATTENTION + name
        for name in (
            'v_querykey_convbnrelu',
            'h_querykey_convbnrelu',
            'value_convbnrelu',
            'v_c_attention',
            'h_c_attention',
        )
    },
    'seg_head/end_convbnrelu': 'decode_head.end_conv',
    'seg_head/image_level_block/convbnrelu': 'decode_head.image_level_conv',
    'seg_head_convbnrelu': 'decode_head.seg_head_conv',
    'logits_conv': 'decode_head.conv_seg',
    'aux_feature_convbnrelu0': 'auxiliary_head.convs.0',
    'aux_loss_logits_conv': 'auxiliary_head.conv_seg',
}
LEAVES = {
    'kernel': 'weight',
    'bias': 'bias',
    'gamma': 'weight',
    'beta': 'bias',
    'moving_mean': 'running_mean',
    'moving_variance': 'running_var',
}
SUFFIX = '/.ATTRIBUTES/VARIABLE_VALUE'


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Read TensorFlow variables by their names.

    Args:
        path: An ``.npz``, or a checkpoint's prefix.

    Returns:
        Without what only training needs.

    Raises:
        UserError: There is no such file, it cannot be read, or TensorFlow is
            missing.
    """
    if path.suffix == '.npz':
        try:
            with np.load(path) as file:
                found = {k.replace('|', '/'): file[k] for k in file.files}
        except (OSError, ValueError) as error:
            raise UserError(f'{path} cannot be read: {error}') from error
    else:
        if not path.with_name(f'{path.name}.index').is_file():
            raise UserError(
                f'there is no {path}.index: name the checkpoint without its '
                'ending, or an .npz'
            )
        try:
            import tensorflow
        except ImportError as error:
            raise UserError(
                'reading a TensorFlow checkpoint needs TensorFlow: pip '
                'install tensorflow-cpu, or make an .npz elsewhere (--help)'
            ) from error
        reader = tensorflow.train.load_checkpoint(str(path))
        names = reader.get_variable_to_shape_map()
        found = {name: reader.get_tensor(name) for name in names}
    return {
        name.removesuffix(SUFFIX): np.asarray(value)
        for name, value in found.items()
        if 'OPTIMIZER_SLOT' not in name and np.ndim(value)
    }


def to_torch(name: str, value: np.ndarray) -> tuple[str, Tensor] | None:
    """Our name and layout of a variable, None if it is not of the head."""
    for theirs, ours in MODULES.items():
        # The whole model may be an attribute of something else.
        found = re.search(rf'(?:^|/){re.escape(theirs)}/(.+)$', name)
        if not found:
            continue
        *path, leaf = found[1].split('/')
        if leaf not in LEAVES:
            return None
        dense = 'c_attention' in theirs
        tensor = torch.from_numpy(np.ascontiguousarray(value))
        if leaf == 'kernel':
            tensor = tensor.T if dense else tensor.permute(3, 2, 0, 1)
        name = '.'.join([ours, *path, LEAVES[leaf]])
        return name, tensor.contiguous()
    return None


def convert(
    variables: dict[str, np.ndarray],
) -> tuple[dict[str, Tensor], Report]:
    """Convert the variables of the head.

    Args:
        variables: From :func:`read_variables`.

    Returns:
        Weights of ``decode_head`` and ``auxiliary_head``, and what became of
        each variable.

    Raises:
        UserError: A part of CAA's head is missing.
    """
    report = Report(len(variables))
    converted = {}
    for name, value in variables.items():
        ours = to_torch(name, value)
        if ours is None:
            report.left_out[name] = 'not of the head'
        else:
            converted[ours[0]] = ours[1]
    block = {
        k.removeprefix(ATTENTION): v
        for k, v in converted.items()
        if k.startswith(ATTENTION)
    }
    if not block:
        raise UserError(
            'there is no seg_head/ca_blocks/0 among the variables, got '
            f'{", ".join(list(variables)[:3])}: is it CAA?'
        )
    for theirs, ours in MODULES.items():
        if any(name.startswith(f'{ours}.') for name in converted):
            continue
        if ours.startswith('decode_head.'):
            raise UserError(f'{theirs} is missing among the variables')
        report.notes.append(f'{theirs} is missing: {ours} stays as it is')
    report.compared = compare(block)
    return converted, report


@torch.no_grad()
def compare(block: dict[str, Tensor]) -> float:
    """Our layer against the authors' equations, with the 5-D tensor.

    Args:
        block: Its converted weights.

    Returns:
        As of :func:`mmseg_attn.apis.conversion.difference`.
    """
    block = {k: v.double() for k, v in block.items()}
    value = block['value_convbnrelu.conv.weight']
    guide = block['v_querykey_convbnrelu.conv.weight']
    hidden = [k for k in block if re.match(r'v_c_attention\.denses\.', k)]
    width = len(block[hidden[0]])
    layer = ChannelizedAxialAttention(
        value.shape[1],
        len(value),
        len(guide),
        gate_ratio=width / len(value),
        gate_layers=len(hidden),
        norm_cfg=dict(type='BN', eps=1e-3),
    )
    missing, _ = layer.double().eval().load_state_dict(block, strict=False)
    missing = [n for n in missing if not n.endswith('num_batches_tracked')]
    if missing:
        raise UserError(f'{BLOCK}* lacks what becomes {", ".join(missing)}')
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(
        1, value.shape[1], 3, 4, dtype=torch.float64, generator=generator
    )

    def project(name):
        kernel = block[f'{name}.conv.weight'].flatten(1)
        y = torch.einsum('bchw,dc->bdhw', x, kernel)
        mean, var, weight, bias = (
            block[f'{name}.bn.{leaf}'][:, None, None]
            for leaf in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return ((y - mean) / (var + 1e-3).sqrt() * weight + bias).relu()

    def attend(guide, y, gate):
        scores = torch.einsum('bciw,bcjw->bwij', guide, guide).softmax(-1)
        alpha = torch.einsum('bwij,bcjw->ibjwc', scores, y)
        pooled = alpha.mean((2, 3))
        for i in range(len(hidden)):
            pooled = pooled @ block[f'{gate}.denses.{i}.weight'].T
            pooled = torch.where(pooled > 0, pooled, 0.2 * pooled)
        gates = (pooled @ block[f'{gate}.dense_end.weight'].T).sigmoid()
        out = (gates[:, :, None, None] * alpha).sum(2)
        return out.permute(1, 3, 0, 2)

    y = project('value_convbnrelu')
    y = attend(project('v_querykey_convbnrelu'), y, 'v_c_attention')
    h = project('h_querykey_convbnrelu')
    y = attend(h.mT, y.mT, 'h_c_attention').mT
    return difference(layer(x), y)


def main() -> None:
    args = conversion_parser(__doc__).parse_args()
    convert_file(args.source, args.out, convert, read_variables)


if __name__ == '__main__':
    run_command(main)
