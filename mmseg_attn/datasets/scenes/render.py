# Copyright (c) mmseg_attn contributors.
"""Scenes as pictures and masks, in integer arithmetic only."""

import numpy as np

from .scene import OBJECT_SIZE, Scene

# Colours of the two classes of a kind. A box or ring shows nothing of its
# class.
COLOURS = {
    'flag': ((215, 50, 50), (60, 90, 225)),
    'box': ((205, 200, 190), (205, 200, 190)),
    'ring': ((205, 200, 190), (205, 200, 190)),
}


def _shapes() -> dict[str, np.ndarray]:
    """Masks of the kinds, (OBJECT_SIZE, OBJECT_SIZE) bool."""
    # Twice the distance from the centre, so that it is an integer.
    offset = 2 * np.arange(OBJECT_SIZE) - OBJECT_SIZE + 1
    y, x = np.meshgrid(offset, offset, indexing='ij')
    radius = y * y + x * x
    disc = radius <= OBJECT_SIZE**2
    return {
        'flag': np.abs(y) + np.abs(x) <= OBJECT_SIZE + 2,
        'box': np.ones_like(disc),
        'ring': disc & (radius >= (OBJECT_SIZE // 2) ** 2),
    }


SHAPES = _shapes()


def render(scene: Scene, lit: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene.

    Args:
        scene: The scene.
        lit: Whether the flags show their colours; otherwise they are as grey
            as the boxes.

    Returns:
        RGB picture (size, size, 3) and class indices (size, size), both uint8.
    """
    random = np.random.RandomState(scene.texture)

    def noise(below: int, *shape: int) -> np.ndarray:
        return random.randint(below, size=shape, dtype=np.int64)

    # Patchy ground: coarse blocks, then grain.
    block = 6
    blocks = -(-scene.size // block)
    coarse = noise(36, blocks, blocks).repeat(block, 0).repeat(block, 1)
    ground = 50 + coarse[: scene.size, : scene.size]
    picture = ground[..., None] + noise(24, scene.size, scene.size, 3)
    mask = np.zeros((scene.size, scene.size), np.uint8)
    for item in scene.objects:
        shape = SHAPES[item.kind]
        window = (
            slice(item.y, item.y + OBJECT_SIZE),
            slice(item.x, item.x + OBJECT_SIZE),
        )
        # Drawn for every object, whatever its class, so that scenes which
        # differ in colours only have the same shading.
        shade = noise(30, 1, 1, 1) + noise(16, *shape.shape, 1) - 23
        kind = item.kind if lit else 'box'
        colour = np.array(COLOURS[kind][item.colour]) + shade
        picture[window][shape] = colour[shape]
        mask[window][shape] = item.label
    return picture.clip(0, 255).astype(np.uint8), mask
