# Copyright (c) mmseg_attn contributors.
"""Head of CCNet3D, for clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...errors import UserError
from ...registry import MODELS
from .cc_head import CCHead


@MODELS.register_module()
class CCHead3D(CCHead):
    """Head of CCNet3D: recurrent criss-cross attention over a clip.

    :class:`CCHead` with attention along time, too: the first conv works on
    each frame for itself, the attention on the clip, and the rest on the
    labelled frame. The names of the parameters stay, and the weights of a
    :class:`CCHead` load; with one frame its output is the same.

    Args:
        recurrence: Number of loops of the attention. 3 let each position see
            the whole clip; how many the paper has is not known.
        label_frame: Which frame of a clip is segmented, from 0 on. None means
            the middle one, T // 2. The segmentor sets it.
        attention: Further arguments of the attention, as for
            :class:`CCHead`.
        kwargs: Further arguments of :class:`AttentionHead`, of one input map.

    Raises:
        ValueError: The head takes several maps, or an argument cannot be
            meant.

    CCNet, https://arxiv.org/abs/1811.11721, 3D criss-cross attention.
    """

    def __init__(
        self,
        recurrence: int = 3,
        label_frame: int | None = None,
        attention: dict | None = None,
        **kwargs: Any,
    ):
        if kwargs.get('input_transform') is not None:
            raise ValueError(
                'CCHead3D takes one map of the backbone: input_transform must '
                f'be None, got {kwargs["input_transform"]!r}'
            )
        check_label_frame('CCHead3D', label_frame)
        super().__init__(
            recurrence=recurrence,
            attention={**(attention or {}), 'spatial_dims': 3},
            **kwargs,
        )
        self.label_frame = label_frame

    def reduce(self, x: Tensor) -> Tensor:
        """What of each frame the attention needs, for itself.

        Args:
            x: A map of the backbone, (B, in_channels, T, H, W).

        Returns:
            (B, channels, T, H, W).
        """
        return per_frame(self.convs[0], x)

    def attend(self, reduced: Tensor) -> Tensor:
        """Attention over a clip.

        Args:
            reduced: (B, channels, T, H, W).

        Returns:
            A tensor of the same shape.
        """
        layer = getattr(self, self.attention_name)
        for _ in range(self.recurrence):
            reduced = layer(reduced)
        return reduced

    def map_and_attention(
        self, inputs: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The labelled frame's input map, and the attention's output on it."""
        x = self._transform_inputs(inputs)
        attended = self.attend(self.reduce(x))
        frame = middle(x.shape[2], self.label_frame)
        return x[:, :, frame], attended[:, :, frame]

    def segment(self, x: Tensor, attended: Tensor) -> Tensor:
        """Logits of one frame.

        Args:
            x: The backbone's map of it, (B, in_channels, H, W).
            attended: The attention's output on it, (B, channels, H, W).

        Returns:
            (B, num_classes, H, W).
        """
        return self.cls_seg(self.fuse(x, attended))


def per_frame(module: nn.Module, x: Tensor) -> Tensor:
    """Run a module for pictures on each frame of a clip.

    Args:
        module: A module on maps (B, C, H, W).
        x: (B, C, T, H, W).

    Returns:
        (B, C', T, H', W').
    """
    batch, frames = x.shape[0], x.shape[2]
    out = module(x.transpose(1, 2).flatten(0, 1))
    return out.unflatten(0, (batch, frames)).transpose(1, 2)


def check_label_frame(name: str, label_frame: int | None) -> None:
    """Refuse what is no number of a frame.

    Args:
        name: Name of the class, for the message.
        label_frame: The number, or None for the middle one.

    Raises:
        ValueError: It is neither None nor a whole number from 0 on.
    """
    number = type(label_frame) is int and label_frame >= 0
    if label_frame is not None and not number:
        raise ValueError(
            f'{name}: label_frame must be a whole number of at least 0, or '
            f'None for the middle one, got {label_frame!r}'
        )


def middle(frames: int, label_frame: int | None) -> int:
    """Number of the frame to be segmented.

    Args:
        frames: Frames T of the clip.
        label_frame: Its number, or None for T // 2.

    Returns:
        The number.

    Raises:
        UserError: The clip has no such frame.
    """
    if label_frame is None:
        return frames // 2
    if not 0 <= label_frame < frames:
        raise UserError(
            f'model.label_frame is {label_frame}, but the clip has {frames} '
            'frames: expected a number from 0 to frames - 1.'
        )
    return label_frame
