# Copyright (c) mmseg_attn contributors.
"""What an exported file says of itself: all that is needed to run it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import UnionType
from typing import get_args, get_origin

from ..errors import UserError

# Name of the card in a file's metadata, and the version of its content.
KEY = 'mmseg_attn'
FORMAT = 1
# What networks are for.
SEGMENTOR, CLIPS, STEREO = TASKS = ('segmentor', 'clips', 'stereo')
# What a network may give: logits (N, classes, H, W), their probabilities, or
# the class of each pixel (N, H, W). Of pairs it is DISPARITY, (N, H, W).
OUTPUTS = ('logits', 'probabilities', 'mask')
DISPARITY = 'disparity'


@dataclass(frozen=True)
class Card:
    """What an exported file says of itself.

    The network takes pictures (N, H, W, 3) uint8, red first, or of clips and
    pairs (N, frames, H, W, 3): mean and std are applied within, and are told
    for information, like the order of the channels.

    Attributes:
        classes: Names of the classes; none of a stereo network.
        palette: (red, green, blue) of each class.
        task: One of :data:`TASKS`.
        output: One of :data:`OUTPUTS`, or of pairs :data:`DISPARITY`.
        frames: Pictures that are taken together: the frames of a clip, the
            left and the right one of a pair; None: single ones.
        label_frame: Which frame of a clip is segmented, from 0 on.
        frame_step: How far apart two frames of a clip are.
        max_disparity: Disparities of a pair are below it, in pixels.
        resized: Whether the output has the size of the input; else it has
            that of the head.
        align_corners: How logits are resized to the picture.
        threshold: Probability from which on a pixel is of the second of two
            classes, where the network has one logit.
        scale: Longer and shorter side that pictures are resized to; None
            leaves them as they are.
        keep_ratio: Whether ``scale`` bounds both sides, or is width, height.
        divisor: Sides are filled up to multiples of it, within the network.
        window: Height and width of the windows that pictures are predicted
            in; None: whole.
        stride: Steps from one window to the next.
        fixed_size: The only height and width that the network takes, of
            pictures or of windows; None: any.
        single: Whether it takes one picture at a time alone.
        mean: Means of red, green and blue, of 0 to 255.
        std: Standard deviations, likewise.
        channels: The order of a picture's channels, red first.
        precision: ``'fp32'``, ``'fp16'`` or ``'int8'``.
        names: Names and SHA-256 of the config and the checkpoint.
        versions: Versions of what has written the file.
        format: Version of this content.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    task: str = SEGMENTOR
    output: str = 'logits'
    frames: int | None = None
    label_frame: int = 0
    frame_step: int = 1
    max_disparity: int | None = None
    resized: bool = True
    align_corners: bool = False
    threshold: float = 0.5
    scale: tuple[int, int] | None = None
    keep_ratio: bool = True
    divisor: int = 1
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    fixed_size: tuple[int, int] | None = None
    single: bool = False
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: str = 'RGB'
    precision: str = 'fp32'
    names: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        """Write the card as text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | None, path: object) -> 'Card':
        """Read a card.

        Args:
            text: As from :meth:`to_json`, None where a file has none.
            path: The file, for messages.

        Returns:
            The card.

        Raises:
            UserError: It is not by this package, or by a newer one.
        """
        if not text:
            raise UserError(
                f'{path} was not written by the command export: it does not '
                'say its classes and how pictures are to be prepared.'
            )
        try:
            found = json.loads(text)
            version = found['format']
            if version > FORMAT:
                raise UserError(
                    f'{path} was written by a newer mmseg_attn (format '
                    f'{version}, this one reads {FORMAT}): update it with '
                    'pip install -U mmseg_attn.'
                )
            known = {item.name for item in fields(cls)}
            values = {
                name: _as_tuples(value)
                for name, value in found.items()
                if name in known
            }
            card = cls(**values)
            for item in fields(cls):
                value = getattr(card, item.name)
                if not _fits(value, item.type):
                    raise ValueError(f'{item.name} is {value!r}')
            outputs = (DISPARITY,) if card.task == STEREO else OUTPUTS
            if card.output not in outputs or card.task not in TASKS:
                raise ValueError(f'{card.task} with {card.output}')
            if not card.classes and card.task != STEREO:
                raise ValueError('no classes')
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f'what {path} says of itself is damaged ({error}): export it '
                'again.'
            ) from error
        return card

    def check_channels(self, count: object, path: object) -> None:
        """Refuse a network that gives another number of classes.

        Args:
            count: Its output's second size; no number where it is open.
            path: The file, for messages.

        Raises:
            UserError: It does.
        """
        if self.output not in OUTPUTS[:2] or not isinstance(count, int):
            return
        single = self.output == 'logits' and len(self.classes) == 2
        if count != len(self.classes) and not (single and count == 1):
            raise UserError(
                f'what {path} says of itself is damaged (it names '
                f'{len(self.classes)} classes, and its network gives '
                f'{count}): export it again.'
            )


def _fits(value: object, kind: object) -> bool:
    """Whether a value that JSON held is of an annotated type."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if parts[-1] is ...:
            parts = parts[:1] * len(value)
        return len(parts) == len(value) and all(map(_fits, value, parts))
    if origin:
        return isinstance(value, origin)
    return type(value) is kind or (kind is float and type(value) is int)


def _as_tuples(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(_as_tuples, value))
    return value
