# Copyright (c) mmseg_attn contributors.
"""Turn a checkpoint of the official MAResU-Net or MANet into one of ours.

It then loads in configs/maresunet/*.py or configs/manet/*.py. Takes files of
https://github.com/lironui/MAResU-Net and of
https://github.com/lironui/Multi-Attention-Network, and tells by their names
which network it is: both have linear attention by the same names, with
another map of its features.
"""

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
        linear_attention_formula,
    )
    from mmseg_attn.models.decode_heads import MANetHead, MAResUNetHead

STAGES = (1, 2, 3, 4)
# Their module -> ours.
NAMES = {
    'firstconv': 'backbone.conv1',
    'firstbn': 'backbone.bn1',
    'finaldeconv1': 'decode_head.up.0',
    'finalconv2': 'decode_head.up.2',
    'finalconv3': 'decode_head.conv_seg',
}
for stage in STAGES:
    NAMES[f'encoder{stage}'] = f'backbone.layer{stage}'
    decoder = ('conv1', 'norm1', 'deconv2', 'norm2', 'conv3', 'norm3')
    for place, layer in zip((0, 1, 3, 4, 6, 7), decoder, strict=True):
        NAMES[f'decoder{stage}.{layer}'] = (
            f'decode_head.decoders.{stage - 1}.{place}'
        )
# The same in a block of attention; MANet's has the first two alone.
ATTENTION = {
    'PAM': 'position_attention',
    'CAM': 'channel_attention',
    'conv1.0': 'start',
    'conv2P.1.0': 'position_end.1',
    'conv2C.1.0': 'channel_end.1',
    'conv3.1.0': 'end.1',
}
HEADS = {'MAResU-Net': MAResUNetHead, 'MANet': MANetHead}


def convert(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], Report]:
    """Rename the official weights; none of them changes.

    Args:
        weights: The official state dict.

    Returns:
        A state dict for ``EncoderDecoder`` with the host's ``ResNet`` and
        ``mmseg_attn.MAResUNetHead`` or ``mmseg_attn.MANetHead``, and what
        became of each weight.

    Raises:
        UserError: It is of neither network, or a part is missing.
    """
    if not any(name.startswith('attention4.PAM.') for name in weights):
        raise UserError(
            'expected weights that begin with attention4.PAM, got '
            f'{", ".join(list(weights)[:3])}: is it MAResU-Net or MANet?'
        )
    convolved = any(name.startswith('attention4.conv1.') for name in weights)
    network = 'MAResU-Net' if convolved else 'MANet'
    names = dict(NAMES)
    for stage in STAGES:
        for theirs, ours in list(ATTENTION.items())[
            : None if convolved else 2
        ]:
            names[f'attention{stage}.{theirs}'] = (
                f'decode_head.attentions.{stage - 1}.{ours}'
            )
    converted, found = {}, set()
    for name, value in weights.items():
        module = next((m for m in names if name.startswith(f'{m}.')), None)
        if module is None:
            raise UserError(f'"{name}" is no weight of the official {network}')
        found.add(module)
        ours = names[module] + name.removeprefix(module)
        if ours.endswith('channel_attention.gamma'):
            # The host's scale has no axis.
            ours, value = f'{ours}.scale', value.reshape(())
        converted[ours] = value
    missing = [module for module in names if module not in found]
    if missing:
        raise UserError(
            f'weights of {network} are missing: {", ".join(missing)}'
        )
    report = Report(len(weights))
    report.compared = compare(converted, weights, network)
    classes = len(converted['decode_head.conv_seg.weight'])
    report.notes += [
        'compared with a gain (gamma) of 1, whatever it is in the file',
        f'{network}: decode_head needs num_classes={classes}, backbone '
        f'depth={depth_of(converted)}; how pictures were scaled, the file '
        'does not tell',
    ]
    return converted, report


def depth_of(converted: dict[str, Tensor]) -> int | str:
    """Depth of the ResNet, from its third stage."""
    third = [n for n in converted if n.startswith('backbone.layer3.')]
    blocks = len({name.split('.')[2] for name in third})
    wide = any(name.endswith('.conv3.weight') for name in third)
    known = {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101}
    return known.get((blocks, wide), 'unknown')


@torch.no_grad()
def compare(
    converted: dict[str, Tensor], weights: dict[str, Tensor], network: str
) -> float:
    """Our head's attention, as configs build it, against the formulas.

    All gains are 1 here: with 0, at which they start, any attention passes.

    Args:
        converted: Our weights.
        weights: The official ones.
        network: ``'MAResU-Net'`` or ``'MANet'``.

    Returns:
        As of :func:`mmseg_attn.apis.conversion.difference`.

    Raises:
        UserError: The weights are not of this network.
    """

    def below(state, prefix):
        return {
            name.removeprefix(prefix): torch.ones_like(value).double()
            if 'gamma' in name
            else value.double()
            for name, value in state.items()
            if name.startswith(prefix)
        }

    try:
        head = HEADS[network](
            [
                len(weights[f'attention{i}.PAM.value_conv.weight'])
                for i in STAGES
            ],
            channels=len(weights['finalconv2.weight']),
            num_classes=len(weights['finalconv3.weight']),
        )
        head.double().eval()
        head.load_state_dict(below(converted, 'decode_head.'))
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(
            f'the weights are not those of {network}: {error}'
        ) from error
    generator = torch.Generator().manual_seed(0)
    found = 0.0
    for stage, block in zip(STAGES, head.attentions, strict=True):
        official = below(weights, f'attention{stage}.')
        channels = len(official['PAM.value_conv.weight'])
        x = torch.randn(
            1, channels, 4, 5, dtype=torch.float64, generator=generator
        )
        expected = formula(official, x, network)
        found = max(found, difference(block(x), expected))
    return found


def formula(official: dict[str, Tensor], x: Tensor, network: str) -> Tensor:
    """A block of attention as the official code computes it, dense.

    Args:
        official: Its weights, by their names.
        x: (1, C, H, W).
        network: ``'MAResU-Net'`` or ``'MANet'``.
    """

    def conv(name, value):
        weight, bias = (official[f'{name}.{i}'] for i in ('weight', 'bias'))
        return F.conv2d(value, weight, bias, padding=weight.shape[-1] // 2)

    kernel = network == 'MANet'
    t = x if kernel else conv('conv1.0', x).relu()
    positions = linear_attention_formula(
        {k.removeprefix('PAM.'): v for k, v in official.items()},
        t,
        'softplus' if kernel else 'taylor',
    )
    flat = t.flatten(2)[0]
    energy = flat @ flat.T
    energy = energy.amax(1, keepdim=True) - energy
    gain = official['CAM.gamma']
    channels = t + gain * (energy.softmax(1) @ flat).view_as(t)
    if kernel:
        return positions + channels
    both = conv('conv2P.1.0', positions).relu()
    both = both + conv('conv2C.1.0', channels).relu()
    return conv('conv3.1.0', both).relu()


def main() -> None:
    args = conversion_parser(__doc__).parse_args()
    convert_file(args.source, args.out, convert)


if __name__ == '__main__':
    run_command(main)
