# Copyright (c) mmseg_attn contributors.
"""Pyramid stereo matching network."""

from __future__ import annotations

import torch
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn import functional as F

from ...errors import UserError
from ...layers.arguments import check_counts
from ...registry import MODELS

# Two hourglasses in a row halve a volume that is a quarter as large.
DIVISOR = 16


@MODELS.register_module()
class PSMNet(BaseModel):
    """Pyramid stereo matching network: disparities from a pair of pictures.

    Official checkpoints load unchanged
    (:func:`mmseg_attn.engine.checkpoint.load_weights`).

    Args:
        max_disparity: Disparities are 0 to ``max_disparity - 1`` pixels; a
            multiple of 16.
        features: Config of what describes a picture at 1/4 of its size.
        cost_volume: Config of what puts two descriptions together.
        aggregation: Config of what scores disparities.
        regression: Config of what turns scores into disparities.
        one_batch: Whether left and right pictures are described in one batch,
            so that in training the features' norms see both together. False
            is the official code's way, a call each.
        loss_disparity: Config of the loss, called with the list of predicted
            maps and the true one.
        data_preprocessor: Config of :class:`ClipDataPreProcessor`, to which
            a pair is a clip of two.
        init_cfg: Initialization, as in mmengine.

    Raises:
        ValueError: ``max_disparity`` is no positive multiple of 16.

    PSMNet, https://arxiv.org/abs/1803.08669.
    """

    def __init__(
        self,
        max_disparity: int = 192,
        *,
        features: dict | None = None,
        cost_volume: dict | None = None,
        aggregation: dict | None = None,
        regression: dict | None = None,
        one_batch: bool = False,
        loss_disparity: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(data_preprocessor, init_cfg)
        name = type(self).__name__
        check_counts(name, max_disparity=max_disparity)
        if max_disparity % DIVISOR:
            raise ValueError(
                f'{name}: max_disparity must be a positive multiple of '
                f'{DIVISOR}, got {max_disparity}'
            )
        self.max_disparity = max_disparity
        self.one_batch = one_batch

        def build(config: dict | None, default: str) -> torch.nn.Module:
            name = f'mmseg_attn.{default}'
            return MODELS.build({'type': name, **(config or {})})

        self.feature_extraction = build(features, 'PSMNetFeatures')
        self.cost_volume = build(cost_volume, 'ConcatCostVolume')
        self.aggregation = build(aggregation, 'StackedHourglass')
        self.regression = build(regression, 'DisparityRegression')
        self.loss_disparity = build(loss_disparity, 'DisparityLoss')

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # The official code has the 3D network in the model itself.
        for key in list(state_dict):
            name = key[len(prefix) :]
            if key.startswith(prefix) and name.startswith(('dres', 'classif')):
                state_dict[f'{prefix}aggregation.{name}'] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[SegDataSample] | None = None,
        mode: str = 'tensor',
    ) -> list[Tensor] | dict[str, Tensor] | list[SegDataSample]:
        """Run the network.

        Args:
            inputs: Left and right pictures (B, 3, 2, H, W).
            data_samples: Samples to train with, each with ``gt_disparity``,
                or into which to predict.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            With 'tensor' the maps (B, H, W) of disparities in pixels, the last
            one the best, with 'loss' the losses by name, with 'predict'
            samples with ``pred_disparity``, (1, H, W) in pixels.

        Raises:
            ValueError: The mode is not one of these.
            UserError: In the modes 'tensor' and 'loss' H or W is no multiple
                of 16 or less than the features need, or a true map has not
                the size of its picture.
        """
        if mode == 'tensor':
            return self.disparities(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ValueError(
            f"mode must be 'tensor', 'loss' or 'predict', got {mode!r}"
        )

    def disparities(self, inputs: Tensor) -> list[Tensor]:
        """Predict with each output of the network.

        Args:
            inputs: (B, 3, 2, H, W), H and W multiples of 16.

        Returns:
            Maps (B, H, W) in pixels; the last one alone in eval mode.

        Raises:
            UserError: H or W is no multiple of 16, or less than the features
                need.
        """
        size = inputs.shape[-2:]
        if any(side % DIVISOR for side in size):
            raise UserError(
                f'pictures of {size[1]} x {size[0]} pixels: expected '
                f'multiples of {DIVISOR}, such as crop_size=(256, 512).'
            )
        pictures = inputs.unbind(2)
        if self.one_batch:
            both = self.feature_extraction(torch.cat(pictures))
            left, right = both.unflatten(0, (2, -1))
        else:
            left, right = map(self.feature_extraction, pictures)
        volume = self.cost_volume(left, right, self.max_disparity // 4)
        scores = self.aggregation(volume)
        return [
            self.regression(score, self.max_disparity, tuple(size))
            for score in (scores if self.training else scores[-1:])
        ]

    def best_disparity(self, inputs: Tensor) -> Tensor:
        """Predict pairs of any size.

        Args:
            inputs: (B, 3, 2, H, W); at the top and the right they are filled
                up with zeros to a multiple of 16, and to the least size.

        Returns:
            (B, H, W) in pixels.
        """
        above, right = map(self._missing, inputs.shape[-2:])
        found = self.disparities(F.pad(inputs, (0, right, above, 0)))[-1]
        # A slice would bind an exported network to some sizes.
        return F.pad(found, (0, -right, -above, 0))

    @property
    def least_size(self) -> int:
        """Least side of what the network sees, in pixels."""
        least = getattr(self.feature_extraction, 'min_size', DIVISOR)
        return DIVISOR * _parts(least)

    def _missing(self, side: int) -> int:
        """Pixels that a side lacks."""
        # While it is exported the side is a symbol, which max would compare.
        parts = torch.sym_max(_parts(side), _parts(self.least_size))
        return DIVISOR * parts - side

    def loss(
        self, inputs: Tensor, data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Compare all outputs with the true disparities.

        Args:
            inputs: (B, 3, 2, H, W).
            data_samples: Samples, each with ``gt_disparity`` (1, H, W).

        Returns:
            The loss as 'loss_disparity'.

        Raises:
            UserError: A true map has not the size of its picture.
        """
        for sample in data_samples:
            shape = tuple(sample.gt_disparity.shape)
            if shape != tuple(inputs.shape[-2:]):
                raise UserError(
                    f'{sample.get("img_path", "a pair")}: the disparity map '
                    f'is {shape[1]} x {shape[0]} pixels, the pictures of the '
                    f'batch are {inputs.shape[-1]} x {inputs.shape[-2]}: '
                    'expected pairs as large as the crop or larger. Set '
                    'crop_size to a multiple of 16 that all have.'
                )
        target = torch.cat([s.gt_disparity.data for s in data_samples])
        predicted = self.disparities(inputs)
        return dict(loss_disparity=self.loss_disparity(predicted, target))

    def predict(
        self,
        inputs: Tensor,
        data_samples: list[SegDataSample] | None = None,
    ) -> list[SegDataSample]:
        """Predict pairs of any size.

        Args:
            inputs: (B, 3, 2, H, W).
            data_samples: Samples into which the results go. None means new
                ones.

        Returns:
            Samples with ``pred_disparity``, (1, H, W) in pixels.
        """
        maps = self.best_disparity(inputs)
        data_samples = data_samples or [SegDataSample() for _ in maps]
        for sample, found in zip(data_samples, maps, strict=True):
            sample.pred_disparity = PixelData(data=found[None])
        return data_samples


def _parts(side: int) -> int:
    """How many times 16 a side is, rounded up."""
    # Not -(-side // 16): ONNX rounds that towards zero.
    return (side + DIVISOR - 1) // DIVISOR
