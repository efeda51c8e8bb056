# Copyright (c) mmseg_attn contributors.
"""Compare an exported file with the network that it is of."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..errors import UserError
from ..runtime.card import STEREO, Card
from ..runtime.sessions import Session

# The largest difference of a logit or disparity, beside those of 1 and less
# relative to the largest one, and the share of pixels of another class.
MOST = {
    'fp32': {'.onnx': 1e-4, '.xml': 1e-4, '.pt2': 1e-5},
    'fp16': dict.fromkeys(('.onnx', '.xml', '.pt2'), 5e-2),
}
MOST_PIXELS = {'fp32': 1e-4, 'fp16': 2e-2}


class Difference(NamedTuple):
    """How far a file is from its network on pictures of one size.

    Attributes:
        size: Height and width.
        values: The largest difference of a logit, probability or disparity,
            over the largest value or 1.
        pixels: Share of the pixels whose class differs; 0 of disparities.
        ours: Seconds of the file for a picture.
        theirs: Seconds of the network for a picture.
    """

    size: tuple[int, int]
    values: float
    pixels: float
    ours: float
    theirs: float


def sizes_around(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Three sizes that are not the traced one: odd, wide and high.

    Args:
        size: The traced height and width.
    """
    height, width = size
    return [
        (height + 33, width + 17),
        (height, width + width // 2 + 1),
        (height + height // 2 + 3, width),
    ]


def compare(
    session: Session, network: nn.Module, sizes: Sequence[tuple[int, int]]
) -> list[Difference]:
    """Run both on pictures of noise, or on clips or pairs of them.

    Args:
        session: The file.
        network: What it was written of.
        sizes: Heights and widths.

    Returns:
        The differences at each size.
    """
    generator = np.random.default_rng(0)
    card, found = session.card, []
    together = (card.frames,) if card.frames else ()
    for height, width in sizes:
        # Squares, since noise of single pixels says little of regions.
        shape = 1, *together, -(-height // 8), -(-width // 8), 3
        coarse = generator.integers(0, 256, shape, np.uint8)
        picture = coarse.repeat(8, -3).repeat(8, -2)[..., :width, :]
        picture = np.ascontiguousarray(picture[..., :height, :, :])
        with torch.inference_mode():
            theirs, expected = _timed(
                lambda x: network(torch.from_numpy(x)).numpy(), picture
            )
        ours, got = _timed(session, picture)
        far = share = 0.0
        if card.output != 'mask':
            most = max(1.0, float(np.abs(expected.astype(float)).max()))
            far = float(np.abs(got.astype(float) - expected).max() / most)
        if card.task != STEREO:
            share = float((_classes(got) != _classes(expected)).mean())
        size = height, width
        found.append(Difference(size, far, share, ours, theirs))
    return found


def check(differences: Sequence[Difference], card: Card, kind: str) -> None:
    """Refuse a file that disagrees with its network.

    Args:
        differences: As from :func:`compare`.
        card: What the file says of itself.
        kind: Ending of the file.

    Raises:
        UserError: It does.
    """
    for item in differences:
        bounds = MOST[card.precision][kind], MOST_PIXELS[card.precision]
        # Not <=: a value that is no number is no agreement.
        good = item.values <= bounds[0] and item.pixels <= bounds[1]
        if not good:
            height, width = item.size
            others = f', {item.pixels:.2%} of the pixels of another class'
            raise UserError(
                f'the exported network disagrees with PyTorch at {height} x '
                f'{width} pixels: {card.output} by {item.values:.1e} '
                f'(expected up to {bounds[0]:.0e})'
                f'{"" if card.task == STEREO else others}. No file was '
                f'written; {_advice(card)}.'
            )


def _advice(card: Card) -> str:
    """What may help, of a file that disagrees."""
    if card.task == STEREO:
        return (
            'give it trained weights: disparities of others jump between '
            'scores that are nearly equal'
        )
    if card.precision == 'fp16':
        return 'leave out --fp16'
    if card.fixed_size:
        return 'try another format'
    return 'bind it to one size: --fixed-size HEIGHT WIDTH'


def _classes(found: np.ndarray) -> np.ndarray:
    """The class of each pixel (N, H, W), of logits or of class maps."""
    if found.ndim == 4:
        return found.argmax(1) if found.shape[1] > 1 else found[:, 0] > 0
    return found


def _timed(run, picture: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds of the second call: the first one prepares."""
    run(picture)
    start = time.perf_counter()
    found = run(picture)
    return time.perf_counter() - start, found
