# Copyright (c) mmseg_attn contributors.
"""Compare an exported file with the network that it is of."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..errors import UserError
from ..runtime.sessions import Session

# The largest difference of a logit, beside those of 1 and less relative to
# the largest one, and the share of pixels of another class.
MOST = {
    'fp32': {'.onnx': 1e-4, '.xml': 1e-4, '.pt2': 1e-5},
    'fp16': dict.fromkeys(('.onnx', '.xml', '.pt2'), 5e-2),
}
MOST_PIXELS = {'fp32': 1e-4, 'fp16': 2e-2}


class Difference(NamedTuple):
    """How far a file is from its network on pictures of one size.

    Attributes:
        size: Height and width.
        logits: The largest difference, over the largest value or 1.
        pixels: Share of the pixels whose class differs.
        ours: Seconds of the file for a picture.
        theirs: Seconds of the network for a picture.
    """

    size: tuple[int, int]
    logits: float
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
    """Run both on pictures of noise.

    Args:
        session: The file.
        network: What it was written of.
        sizes: Heights and widths.

    Returns:
        The differences at each size.
    """
    generator = np.random.default_rng(0)
    found = []
    for size in sizes:
        # Squares, since noise of single pixels says little of regions.
        coarse = generator.integers(
            0, 256, (1, -(-size[0] // 8), -(-size[1] // 8), 3), np.uint8
        )
        picture = coarse.repeat(8, 1).repeat(8, 2)[:, : size[0], : size[1]]
        picture = np.ascontiguousarray(picture)
        with torch.inference_mode():
            theirs, expected = _timed(
                lambda x: network(torch.from_numpy(x)).numpy(), picture
            )
        ours, got = _timed(session, picture)
        classes = got, expected
        if expected.ndim == 4:
            classes = _classes(got), _classes(expected)
        most = max(1.0, float(np.abs(expected.astype(float)).max()))
        far = np.abs(got.astype(float) - expected).max() / most
        if expected.ndim == 3:
            far = 0.0
        share = float((classes[0] != classes[1]).mean())
        found.append(Difference(size, float(far), share, ours, theirs))
    return found


def check(
    differences: Sequence[Difference], precision: str, kind: str
) -> None:
    """Refuse a file that disagrees with its network.

    Args:
        differences: As from :func:`compare`.
        precision: ``'fp32'`` or ``'fp16'``.
        kind: Ending of the file.

    Raises:
        UserError: It does.
    """
    for item in differences:
        bounds = MOST[precision][kind], MOST_PIXELS[precision]
        # Not <=: a value that is no number is no agreement.
        good = item.logits <= bounds[0] and item.pixels <= bounds[1]
        if not good:
            height, width = item.size
            raise UserError(
                f'the exported network disagrees with PyTorch at {height} x '
                f'{width} pixels: logits by {item.logits:.1e} (expected up to '
                f'{bounds[0]:.0e}), {item.pixels:.2%} of the pixels of '
                'another class. No file was written; bind it to one size: '
                '--fixed-size HEIGHT WIDTH.'
            )


def _classes(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(1) if logits.shape[1] > 1 else logits[:, 0] > 0


def _timed(run, picture: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds of the second call: the first one prepares."""
    run(picture)
    start = time.perf_counter()
    found = run(picture)
    return time.perf_counter() - start, found
