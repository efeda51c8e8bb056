# Copyright (c) mmseg_attn contributors.
"""A segmentor as one network from a picture of bytes to its classes."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..apis.window_network import divisor_of, threshold_of
from ..errors import UserError
from ..models.segmentors import ClipEncoderDecoder


class PictureNetwork(nn.Module):
    """From pictures (N, H, W, 3) uint8, red first, to what is wanted of them.

    Args:
        model: An EncoderDecoder, as from
            :func:`~mmseg_attn.apis.load_model`, in eval mode.
        output: ``'logits'`` (N, classes, H, W), ``'probabilities'`` likewise,
            or ``'mask'`` (N, H, W).
        resized: Whether the output has the size of the pictures, else that of
            the head's output.
        half: Compute in 16 bits; the output is float32 all the same.

    Raises:
        UserError: The model is no segmentor of single pictures, or prepares
            them in a way that a file cannot hold.
    """

    def __init__(
        self,
        model: nn.Module,
        output: str = 'logits',
        resized: bool = True,
        half: bool = False,
    ) -> None:
        super().__init__()
        name = type(model).__name__
        clips = isinstance(model, ClipEncoderDecoder)
        if clips or not hasattr(model, 'encode_decode'):
            raise UserError(
                f'{name} cannot be exported: expected a segmentor of single '
                'pictures, such as EncoderDecoder.'
            )
        prepare = model.data_preprocessor
        padding = prepare.test_cfg or {}
        if padding.get('size'):
            raise UserError(
                'the config pads pictures to one size (data_preprocessor.'
                'test_cfg.size), which a file of any size cannot: use '
                'size_divisor.'
            )
        self.divisor = divisor_of(model)
        self.threshold = threshold_of(model)
        self.pad_value = prepare.pad_val
        self.model, self.output = model, output
        self.resized, self.half_precision = resized, half
        # The host's order is blue first, which bgr_to_rgb turns.
        self.turn = not prepare._channel_conversion
        if prepare._enable_normalize:
            mean, std = prepare.mean.float(), prepare.std.float()
        else:
            mean, std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
        if mean.numel() != 3:
            raise UserError(
                f'the network takes pictures of {mean.numel()} bands, '
                'expected 3.'
            )
        self.register_buffer('mean', mean.clone(), persistent=False)
        self.register_buffer('std', std.clone(), persistent=False)
        if half:
            self.model = copy.deepcopy(model).half()

    def forward(self, pictures: Tensor) -> Tensor:
        """Segment pictures.

        Args:
            pictures: (N, H, W, 3) uint8, red first.

        Returns:
            As ``output`` says, float32 or, of masks, uint8 (int32 beyond 256
            classes).
        """
        height, width = pictures.shape[1:3]
        # In the host's order: others may choose other sums.
        x = pictures.permute(0, 3, 1, 2).contiguous().float()
        if self.turn:
            x = x.flip(1)
        x = (x - self.mean) / self.std
        right, below = -width % self.divisor, -height % self.divisor
        if self.divisor > 1:
            x = F.pad(x, (0, right, 0, below), value=self.pad_value)
        size = x.shape[2:]
        if self.half_precision:
            x = x.half()
        logits = self._logits(x).float()
        if self.resized:
            logits = F.interpolate(
                logits,
                size,
                mode='bilinear',
                align_corners=self.model.align_corners,
            )
            if self.divisor > 1:
                # A slice would bind the file to sizes that are multiples.
                logits = F.pad(logits, (0, -right, 0, -below))
        return self._take(logits)

    def _logits(self, x: Tensor) -> Tensor:
        features = self.model.extract_feat(x)
        head = self.model.decode_head
        if not isinstance(head, nn.ModuleList):
            logits = head(features)
        else:  # a cascade: each head sees what the one before it found
            logits = head[0](features)
            for later in head[1:]:
                logits = later(features, logits)
        if isinstance(logits, (tuple, list)):  # others only train
            logits = logits[0]
        return logits

    def _take(self, logits: Tensor) -> Tensor:
        single = logits.shape[1] == 1
        if self.output == 'logits':
            return logits
        if single:
            second = logits.sigmoid()
            if self.output == 'mask':
                return (second[:, 0] > self.threshold).to(torch.uint8)
            return torch.cat([1 - second, second], 1)
        if self.output == 'probabilities':
            return logits.softmax(1)
        small = logits.shape[1] <= 256
        return logits.argmax(1).to(torch.uint8 if small else torch.int32)
