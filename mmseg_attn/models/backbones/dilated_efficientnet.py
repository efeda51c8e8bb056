# Copyright (c) mmseg_attn contributors.
"""EfficientNet with a smaller output stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...registry import MODELS

STRIDES = (8, 16, 32)


@MODELS.register_module()
class DilatedEfficientNet(BaseModule):
    """EfficientNet of MMDetection with a smaller output stride.

    Where the output stride is reached, convolutions no longer stride, and
    later ones are dilated instead. Parameters and their names
    are MMDetection's, and so those of OpenMMLab's classification zoo
    (prefix ``backbone.``).

    Args:
        arch: ``'b0'`` to ``'b8'``, ``'es'``, ``'em'`` or ``'el'``.
        output_stride: 8, 16 or 32, which is the plain network.
        out_indices: Layers to return: 0 is the stem, 2 to 5 have strides 4
            to 32 in the plain network. Their channels are 40, 64, 176, 512
            for B5 and 48, 80, 224, 640 for B7; layer 6 widens the last to
            2048 and 2560.
        contract_dilation: Whether a convolution that no longer strides keeps
            the dilation before it, as in the hosts' ResNet, so that the
            network holds the plain one's values; else it has the new one, as
            in CAA's official code.
        norm_eval: Whether the norms keep their statistics in training.
        init_cfg: Initialization, as in mmengine. None means MMDetection's.
        kwargs: Further arguments of MMDetection's ``EfficientNet``, such as
            norm_cfg or frozen_stages.

    Raises:
        ImportError: MMDetection cannot be imported.
        ValueError: Another output stride, or what MMDetection refuses.

    EfficientNet, https://arxiv.org/abs/1905.11946.
    """

    def __init__(
        self,
        arch: str = 'b0',
        output_stride: int = 8,
        out_indices: Sequence[int] = (2, 3, 4, 5),
        contract_dilation: bool = True,
        norm_eval: bool = False,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ):
        if output_stride not in STRIDES:
            raise ValueError(
                f'output_stride must be 8, 16 or 32, got {output_stride!r}'
            )
        network = _efficientnet()(arch, out_indices=out_indices, **kwargs)
        super().__init__(init_cfg or network.init_cfg)
        self.out_indices = tuple(out_indices)
        self.norm_eval = norm_eval
        self.frozen_stages = network.frozen_stages
        self.layers = network.layers
        _dilate(self.layers, output_stride, contract_dilation)
        self._freeze()

    def _freeze(self):
        for layer in self.layers[: self.frozen_stages]:
            layer.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of pictures.

        Args:
            x: (B, 3, H, W).

        Returns:
            A map (B, C, h, w) for each entry of ``out_indices``.
        """
        outs = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def train(self, mode: bool = True) -> DilatedEfficientNet:
        """Switch to training, or with ``mode=False`` to evaluation."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def _efficientnet():
    try:
        from mmdet.models.backbones.efficientnet import EfficientNet
    except ImportError as error:
        raise ImportError(
            'DilatedEfficientNet takes its network from MMDetection, which '
            f'cannot be imported here ({error}). It needs mmcv with compiled '
            'operators; then: pip install "mmseg_attn[onedl-det]"'
        ) from error
    return EfficientNet


def _dilate(layers: nn.ModuleList, output_stride: int, contract: bool) -> None:
    stride, dilation = 1, 1
    for conv in layers.modules():
        if not isinstance(conv, nn.Conv2d):
            continue
        before = dilation
        # Of the EdgeTPU networks, 1x1 convolutions stride.
        if conv.stride == (2, 2):
            if stride == output_stride:
                conv.stride = (1, 1)
                dilation *= 2
            else:
                stride *= 2
        # Padding is computed from both at each call, as TensorFlow's SAME.
        if conv.kernel_size != (1, 1):
            own = before if contract else dilation
            conv.dilation = (own, own)
