# Copyright (c) mmseg_attn contributors.
"""Models as one network each, from pictures of bytes to what they find."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..apis.window_network import divisor_of, threshold_of
from ..errors import UserError
from ..models.stereo import PSMNet


class ByteNetwork(nn.Module):
    """From pictures of bytes on.

    Args:
        model: As from :func:`~mmseg_attn.apis.load_model`, in eval mode.
        half: Compute in 16 bits; the output is float32 all the same.

    Raises:
        UserError: The model takes pictures of other bands.
    """

    def __init__(self, model: nn.Module, half: bool) -> None:
        super().__init__()
        self.model, self.half_precision = model, half
        prepare = model.data_preprocessor
        # The host's order is blue first, which bgr_to_rgb turns.
        self.turn = not is_red_first(prepare)
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

    def normalised(self, pictures: Tensor) -> Tensor:
        """Prepare pictures as the host does.

        Args:
            pictures: (N, H, W, 3) uint8, red first, or of clips and pairs (N,
                T, H, W, 3).

        Returns:
            (N, 3, H, W) or (N, 3, T, H, W) float32.
        """
        # In the host's order: others may choose other sums.
        x = pictures.movedim(-1, 1).contiguous().float()
        if self.turn:
            x = x.flip(1)
        shape = 3, *[1] * (x.ndim - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)

    def narrowed(self, x: Tensor) -> Tensor:
        """Make it 16 bits wide where the network is."""
        return x.half() if self.half_precision else x


class PairNetwork(ByteNetwork):
    """From pairs (N, 2, H, W, 3) uint8, red first, to disparities.

    Args:
        model: A stereo network, as from
            :func:`~mmseg_attn.apis.load_model`, in eval mode.
        half: Compute in 16 bits.

    Raises:
        UserError: The config prepares pictures in a way of its own.
    """

    def __init__(self, model: PSMNet, half: bool = False) -> None:
        super().__init__(model, half)
        if model.data_preprocessor.test_cfg:
            raise UserError(
                'the config pads pictures (data_preprocessor.test_cfg), which '
                'a stereo network does itself: leave that out.'
            )

    def forward(self, pictures: Tensor) -> Tensor:
        """Predict disparities.

        Args:
            pictures: (N, 2, H, W, 3) uint8, red first: left and right.

        Returns:
            (N, H, W) float32, in pixels.
        """
        x = self.narrowed(self.normalised(pictures))
        return self.model.best_disparity(x).float()


class PictureNetwork(ByteNetwork):
    """From pictures (N, H, W, 3) uint8, red first, to what is wanted of them.

    Of a segmentor for clips they are (N, T, H, W, 3).

    Args:
        model: An EncoderDecoder, as from
            :func:`~mmseg_attn.apis.load_model`, in eval mode.
        output: ``'logits'`` (N, classes, H, W), ``'probabilities'`` likewise,
            or ``'mask'`` (N, H, W).
        resized: Whether the output has the size of the pictures, else that of
            the head's output.
        half: Compute in 16 bits; the output is float32 all the same.

    Raises:
        UserError: The model is no segmentor, or prepares pictures in a way
            that a file cannot hold.
    """

    def __init__(
        self,
        model: nn.Module,
        output: str = 'logits',
        resized: bool = True,
        half: bool = False,
    ) -> None:
        super().__init__(model, half)
        if not hasattr(model, 'encode_decode'):
            raise UserError(
                f'{type(model).__name__} cannot be exported: expected a '
                'segmentor, such as EncoderDecoder.'
            )
        prepare = model.data_preprocessor
        if (prepare.test_cfg or {}).get('size'):
            raise UserError(
                'the config pads pictures to one size (data_preprocessor.'
                'test_cfg.size), which a file of any size cannot: use '
                'size_divisor.'
            )
        self.divisor = divisor_of(model)
        self.threshold = threshold_of(model)
        self.pad_value = prepare.pad_val
        self.output, self.resized = output, resized

    def forward(self, pictures: Tensor) -> Tensor:
        """Segment pictures.

        Args:
            pictures: (N, H, W, 3) uint8, red first, or of clips (N, T, H, W,
                3).

        Returns:
            As ``output`` says, float32 or, of masks, uint8 (int32 beyond 256
            classes).
        """
        height, width = pictures.shape[-3:-1]
        x = self.normalised(pictures)
        right, below = -width % self.divisor, -height % self.divisor
        if self.divisor > 1:
            x = F.pad(x, (0, right, 0, below), value=self.pad_value)
        size = x.shape[-2:]
        logits = self._logits(self.narrowed(x)).float()
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
            # Not 1 - second: its logarithm is to be the logit's.
            return torch.cat([(-logits).sigmoid(), second], 1)
        if self.output == 'probabilities':
            return logits.softmax(1)
        small = logits.shape[1] <= 256
        return logits.argmax(1).to(torch.uint8 if small else torch.int32)


def is_red_first(prepare: nn.Module) -> bool:
    """Whether a model sees red first, so that the host's pictures are turned.

    Args:
        prepare: The model's data preprocessor.
    """
    # The two host families keep it under different names.
    names = '_channel_conversion', 'channel_conversion'
    return any(getattr(prepare, name, False) for name in names)
