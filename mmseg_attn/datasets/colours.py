# Copyright (c) mmseg_attn contributors.
"""Label pictures that show classes as colours."""

import numpy as np

from ..errors import UserError


def colours_to_index(
    colours: np.ndarray, table: dict[tuple[int, int, int], int], name: str
) -> np.ndarray:
    """Turn a label picture that shows classes as colours into an index mask.

    Args:
        colours: The label picture, (H, W, 3) uint8, RGB.
        table: Value of the mask for each colour.
        name: Name of the classes, for the message.

    Returns:
        The mask, (H, W) uint8.

    Raises:
        UserError: A colour is not in the table.
    """

    def pack(rgb: np.ndarray) -> np.ndarray:
        return rgb.astype(np.int64) @ (65536, 256, 1)

    known = pack(np.array(list(table)))
    order = known.argsort()
    codes = pack(colours)
    place = known.searchsorted(codes, sorter=order).clip(max=len(known) - 1)
    found = order[place]
    wrong = np.argwhere(known[found] != codes)
    if len(wrong):
        y, x = wrong[0]
        raise UserError(
            f'colour {tuple(int(c) for c in colours[y, x])} at row {y}, '
            f'column {x} is none of the {len(table)} {name} colours '
            f'({len(wrong)} such pixels)'
        )
    return np.array(list(table.values()), np.uint8)[found]
