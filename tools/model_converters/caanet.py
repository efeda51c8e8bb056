# Copyright (c) mmseg_attn contributors.
"""Turn an official CAA checkpoint (TensorFlow) into ours.

SOURCE is a TensorFlow checkpoint (``.../ckpt-1``, without ``.index``), for
which TensorFlow must be installed, or an ``.npz`` that somebody with
TensorFlow made of it::

    reader = tf.train.load_checkpoint('ckpt-1')
    np.savez('caa.npz', **{n.replace('/', '|'): reader.get_tensor(n)
                           for n in reader.get_variable_to_shape_map()})

Takes those of https://github.com/edwardyehuang/CAA and of its author's later
https://github.com/edwardyehuang/CAR. The head, the auxiliary head and an
EfficientNet are converted. A ResNet is not: the official one strides in other
blocks and pads otherwise than the hosts'. The norms need an epsilon of 1e-3,
as in configs/caanet.
"""

import re
from collections.abc import Iterable
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
    from mmseg_attn.layers.official import fold_biases

ATTENTION = 'decode_head.attention'
LAST = 'decode_head.seg_head_conv'
LINEAR = 'linear'
# Their object -> our module.
CAA = {
    'seg_head/entry_convbnrelu': 'decode_head.entry_conv',
    'seg_head/ca_blocks/0': ATTENTION,
    'seg_head/end_convbnrelu': 'decode_head.end_conv',
    'seg_head/image_level_block/convbnrelu': 'decode_head.image_level_conv',
    'seg_head_convbnrelu': LAST,
    'logits_conv': 'decode_head.conv_seg',
    'aux_feature_convbnrelu0': 'auxiliary_head.convs.0',
    'aux_loss_logits_conv': 'auxiliary_head.conv_seg',
}
CAR = {
    'head/attention_entry_conv': 'decode_head.entry_conv',
    'head/caa_block': ATTENTION,
    'head/attention_end_conv': 'decode_head.end_conv',
    'head/image_level_block/convbnrelu': 'decode_head.image_level_conv',
    # Either this one or, with CAR, those of its loss take its place.
    'head/end_conv': LAST,
    'head/gta/linear_conv': LINEAR,
    'head/gta/end_conv': f'{LAST}.conv',
    'head/gta/end_norm': f'{LAST}.bn',
    'logits_conv': 'decode_head.conv_seg',
    'head/aux_conv': 'auxiliary_head.convs.0',
    'aux_logits_convs/0': 'auxiliary_head.conv_seg',
}
# Of a block of EfficientNet, and the two convolutions around the blocks.
EFFICIENTNET = {
    'expand_conv': 'expand_conv.conv',
    'expand_conv_bn': 'expand_conv.bn',
    'dwconv': 'depthwise_conv.conv',
    'dwconv_bn': 'depthwise_conv.bn',
    'se_reduce': 'se.conv1.conv',
    'se_expand': 'se.conv2.conv',
    'project_conv': 'linear_conv.conv',
    'project_bn': 'linear_conv.bn',
}
AROUND = {
    'stem_conv': 'layers.0.conv',
    'steam_conv_bn': 'layers.0.bn',  # sic
    'top_conv': 'layers.6.conv',
    'top_bn': 'layers.6.bn',
}
# Layer of MMDetection's EfficientNet with each of its seven kinds of blocks.
LAYERS = (1, 2, 3, 4, 4, 5, 5)
LEAVES = {
    'kernel': 'weight',
    'depthwise_kernel': 'weight',
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


def backbone_modules(names: dict[str, np.ndarray]) -> dict[str, str]:
    """Their object -> our module, of an EfficientNet if there is one.

    Blocks are numbered through there. A kind of blocks begins where the
    number of channels changes.

    Args:
        names: All variables.

    Returns:
        None if the backbone is another.
    """
    if not any(re.search('(?:^|/)backbone/top_conv/', n) for n in names):
        return {}
    widths = {
        int(found[1]): value.shape[-1]
        for name, value in names.items()
        if (found := re.search(r'/blocks/(\d+)/project_conv/kernel$', name))
    }
    modules = {f'backbone/{k}': f'backbone.{v}' for k, v in AROUND.items()}
    kind, layer, place, before = -1, 0, 0, 0
    for number, width in sorted(widths.items()):
        kind += width != before
        if kind == len(LAYERS):
            raise UserError(
                f'the backbone has more than {len(LAYERS)} kinds of blocks, '
                'which no EfficientNet has'
            )
        place = place + 1 if LAYERS[kind] == layer else 0
        layer, before = LAYERS[kind], width
        for theirs, ours in EFFICIENTNET.items():
            modules[f'backbone/blocks/{number}/{theirs}'] = (
                f'backbone.layers.{layer}.{place}.{ours}'
            )
    return modules


def to_torch(
    name: str, value: np.ndarray, modules: dict[str, str]
) -> tuple[str, Tensor] | None:
    """Our name and layout of a variable, None if it is of no module."""
    # The whole model may be an attribute of something else.
    for start in re.finditer(r'(?:^|/)(?=.)', name):
        parts = name[start.end() :].split('/')
        for length in range(len(parts) - 1, 0, -1):
            ours = modules.get('/'.join(parts[:length]))
            if ours is None:
                continue
            *path, leaf = parts[length:]
            if leaf not in LEAVES:
                return None
            tensor = torch.from_numpy(np.ascontiguousarray(value))
            if tensor.ndim == 2:  # of a dense layer
                tensor = tensor.T
            elif leaf == 'depthwise_kernel':
                tensor = tensor.permute(2, 3, 0, 1)
            elif leaf == 'kernel':
                tensor = tensor.permute(3, 2, 0, 1)
            name = '.'.join([ours, *path, LEAVES[leaf]])
            return name, tensor.contiguous()
    return None


def convert(
    variables: dict[str, np.ndarray],
) -> tuple[dict[str, Tensor], Report]:
    """Convert the variables of the heads and of an EfficientNet.

    Args:
        variables: From :func:`read_variables`.

    Returns:
        Weights of ``decode_head``, ``auxiliary_head`` and an EfficientNet's
        ``backbone``, and what became of each variable.

    Raises:
        UserError: A part of CAA's head is missing, or it has two attention
            blocks.
    """
    report = Report(len(variables))
    later = any('head/caa_block/' in name for name in variables)
    modules = CAR if later else CAA
    if any('seg_head/ca_blocks/1/' in name for name in variables):
        raise UserError(
            'the head has several attention blocks (seg_head/ca_blocks/1); '
            'expected one, as mmseg_attn.CAAHead has'
        )
    backbone = backbone_modules(variables)
    converted = {}
    for name, value in variables.items():
        ours = to_torch(name, value, {**modules, **backbone})
        if ours is None:
            report.left_out[name] = 'of no part that is converted'
        else:
            converted[ours[0]] = ours[1]
    block = {
        k.removeprefix(f'{ATTENTION}.'): v
        for k, v in converted.items()
        if k.startswith(f'{ATTENTION}.')
    }
    if not block:
        raise UserError(
            'there is no seg_head/ca_blocks/0 and no head/caa_block among the '
            f'variables, got {", ".join(list(variables)[:3])}: is it CAA?'
        )
    for theirs, ours in modules.items():
        if any(name.startswith(f'{ours}.') for name in converted):
            continue
        if ours.startswith('decode_head.'):
            raise UserError(f'{theirs} is missing among the variables')
        if ours != LINEAR:
            report.notes.append(f'{theirs} is missing: {ours} stays as it is')
    fold_linear(converted)
    report.compared = compare(block)
    report.notes += needs(variables, converted, bool(backbone))
    return converted, report


def fold_linear(converted: dict[str, Tensor]) -> None:
    """Multiply CAR's linear convolution into the one behind it.

    Args:
        converted: Changed in place.
    """
    weight = converted.pop(f'{LINEAR}.weight', None)
    if weight is None:
        return
    bias = converted.pop(f'{LINEAR}.bias', torch.zeros(len(weight))).double()
    key = f'{LAST}.conv.weight'
    last = converted[key].flatten(1).double()
    product = last @ weight.flatten(1).double()
    converted[key] = product.to(weight.dtype)[..., None, None]
    converted[f'{LAST}.conv.bias'] = (last @ bias).to(weight.dtype)
    fold_biases(converted)


def needs(
    variables: dict[str, np.ndarray],
    converted: dict[str, Tensor],
    efficientnet: bool,
) -> list[str]:
    """What a config needs, in sentences.

    Args:
        variables: The authors'.
        converted: Ours.
        efficientnet: Whether the backbone is converted too.
    """
    channels = converted['decode_head.entry_conv.conv.weight'].shape[1]
    notes = [f'the heads take a map of {channels} channels (in_channels)']
    auxiliary = converted.get('auxiliary_head.convs.0.conv.weight')
    if auxiliary is not None:
        width, _, size, _ = auxiliary.shape
        notes.append(
            f'auxiliary_head needs channels={width}, kernel_size={size}'
        )
    if efficientnet:
        notes.append(
            'the backbone was trained on pictures from -1 to 1: '
            'data_preprocessor needs mean=[127.5] * 3, std=[127.5] * 3'
        )
    if any('head/jpu/' in name for name in variables):
        notes.append(
            'the head stood behind joint pyramid upsampling (head/jpu), which '
            'is not converted: its input is not that of these configs'
        )
    return notes


def lacks(names: Iterable[str], block: dict[str, Tensor]) -> None:
    """Name what a block lacks, as a mistake of the user."""
    missing = sorted({*names} - {*block})
    if missing:
        raise UserError(
            f'the attention block lacks what becomes {", ".join(missing)}'
        )


@torch.no_grad()
def compare(block: dict[str, Tensor]) -> float:
    """Our layer against the authors' equations, with the 5-D tensor.

    Args:
        block: Its converted weights.

    Returns:
        As of :func:`mmseg_attn.apis.conversion.difference`.
    """
    block = {k: v.double() for k, v in block.items()}
    projections = ('value_convbnrelu', 'v_querykey_convbnrelu')
    lacks([f'{name}.conv.weight' for name in projections], block)
    lacks(['v_c_attention.denses.0.weight'], block)
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
    counters = [n for n in layer.state_dict() if n.endswith('_tracked')]
    lacks({*layer.state_dict()} - {*counters}, block)
    layer.double().eval().load_state_dict(block)
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
