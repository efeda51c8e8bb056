# Copyright (c) mmseg_attn contributors.
"""Disparities as pictures."""

import numpy as np
from PIL import Image, ImageDraw

from .overlay import text_font

# Red, green and blue from far to near, evenly apart, in the manner of Turbo.
COLOURS = (
    *((48, 18, 59), (70, 107, 227), (40, 187, 236), (49, 242, 153)),
    *((162, 252, 60), (237, 208, 58), (251, 128, 34), (210, 49, 5)),
    (122, 4, 3),
)
STEPS = 256
# Of the scale beside a picture, in pixels.
BAR_WIDTH, LEAST_HEIGHT = 88, 120
GAP = 4


def draw_disparity(*maps: np.ndarray, scale: bool = True) -> np.ndarray:
    """Colour disparities, each map beside the next, with one scale.

    From the 1st to the 99th percentile of the first map, so that single
    pixels do not take the colours of all others. Unknown ones are black.

    Args:
        *maps: (H, W) in pixels, all of one size.
        scale: Whether a bar with numbers stands at the right.

    Returns:
        (H or more, W or more, 3) uint8, RGB.
    """
    known = maps[0][np.isfinite(maps[0])]
    low, high = np.percentile(known, (1, 99)) if known.size else (0, 1)
    high = max(high, low + 1)
    shown = []
    for disparity in maps:
        finite = np.isfinite(disparity)
        colours = _colours(np.where(finite, disparity, low), low, high)
        shown += [colours * finite[..., None].astype(np.uint8)]
        shown += [np.full((len(disparity), GAP, 3), 255, np.uint8)]
    shown = np.concatenate(shown[:-1], axis=1)
    if not scale:
        return shown
    bar = _scale(low, high, max(len(shown), LEAST_HEIGHT))
    below = ((0, len(bar) - len(shown)), (0, 0), (0, 0))
    return np.concatenate(
        [np.pad(shown, below, constant_values=255), bar], axis=1
    )


def _colours(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours (..., 3) uint8 of values, the ends for what is beyond them."""
    at = np.linspace(0, len(COLOURS) - 1, STEPS)
    columns = zip(*COLOURS, strict=True)
    table = [np.interp(at, range(len(COLOURS)), column) for column in columns]
    table = np.rint(np.stack(table, axis=-1)).astype(np.uint8)
    share = (values - low) / (high - low)
    return table[(share * STEPS).clip(0, STEPS - 1).astype(int)]


def _scale(low: float, high: float, height: int) -> np.ndarray:
    """A bar of colours with numbers, (height, BAR_WIDTH, 3) uint8 RGB."""
    margin, left, right = height // 16, 12, 30
    rows = np.arange(margin, height - margin)
    bottom, length = rows[-1], len(rows) - 1
    values = low + (bottom - rows) * (high - low) / length
    panel = Image.new('RGB', (BAR_WIDTH, height), 'white')
    bar = _colours(values, low, high)[:, None].repeat(right - left, axis=1)
    panel.paste(Image.fromarray(bar), (left, margin))
    draw = ImageDraw.Draw(panel)
    font, size = text_font(0)
    for value in _round_numbers(low, high, length // (2 * size)):
        y = round(bottom - (value - low) * length / (high - low))
        draw.line((right, y, right + 3, y), 'black')
        draw.text((right + 6, y), f'{value:g}', 'black', font, 'lm')
    title = 'disparity, pixels'
    label = Image.new('RGB', (round(font.getlength(title)), 16), 'white')
    ImageDraw.Draw(label).text((0, 8), title, 'black', font, 'lm')
    label = label.rotate(90, expand=True)
    panel.paste(label, (BAR_WIDTH - 18, max(0, (height - label.height) // 2)))
    return np.asarray(panel)


def _round_numbers(low: float, high: float, most: int) -> np.ndarray:
    """Numbers of few digits from low to high, evenly apart."""
    rough = (high - low) / max(most, 1)
    power = 10 ** np.floor(np.log10(rough))
    step = power * next(f for f in (1, 2, 5, 10) if f * power >= rough)
    first, last = np.ceil(low / step), np.floor(high / step)
    return np.round(np.arange(first, last + 1) * step, 6) + 0.0  # no -0
