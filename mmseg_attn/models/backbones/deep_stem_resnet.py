# Copyright (c) mmseg_attn contributors.
"""ResNet with MIT's deep stem."""

from typing import Any

from mmseg.models.backbones import ResNetV1c

from ...registry import MODELS

# MIT's name of a stem layer -> the host's.
STEM = {
    'conv1': 'stem.0',
    'bn1': 'stem.1',
    'conv2': 'stem.3',
    'bn2': 'stem.4',
    'conv3': 'stem.6',
    'bn3': 'stem.7',
}


@MODELS.register_module()
class DeepStemResNet(ResNetV1c):
    """ResNet as CCNet's authors use it: MIT's stem and ceil-mode pooling.

    The stem has 64, 64 and 128 channels, where the host's ResNetV1c has 32,
    32 and 64, and an even-sized map grows by one in the pooling (512 -> 65
    at stride 8). MIT's ImageNet weights, and any checkpoint with their
    names, load unchanged.

    Args:
        stem_channels: Channels after the stem; 64 takes the hosts'
            ``open-mmlab://resnet101_v1c`` weights.
        kwargs: Further arguments of ``mmseg.models.ResNetV1c``.

    ``forward`` returns what that of the host's ResNet does: a tensor
    (B, C, H, W) for each entry of ``out_indices``.

    Source: CCNet, https://github.com/speedinghzl/CCNet, networks/ccnet.py;
    the weights, https://github.com/CSAILVision/semantic-segmentation-pytorch.
    """

    def __init__(self, stem_channels: int = 128, **kwargs: Any) -> None:
        super().__init__(stem_channels=stem_channels, **kwargs)
        self.maxpool.ceil_mode = True

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for key in list(state_dict):
            layer, _, tail = key[len(prefix) :].partition('.')
            if key.startswith(prefix) and layer in STEM:
                new_key = f'{prefix}{STEM[layer]}.{tail}'
                state_dict[new_key] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
