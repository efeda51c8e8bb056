# Copyright (c) mmseg_attn contributors.
"""What stands where in a demo scene, apart from how it is drawn.

All boxes look alike, and so do all rings; something far away tells their
class:

- a *flag* shows its class by its colour;
- a *box* belongs to the flag in its own row or column, one hop of
  criss-cross attention away;
- a *ring* belongs to the flag of the box in its own row or column. That flag
  is in neither itself, so it takes two hops.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...errors import UserError

CLASSES = (
    'background',
    'red flag',
    'blue flag',
    "red flag's box",
    "blue flag's box",
    "red flag's ring",
    "blue flag's ring",
)
PALETTE = (
    (45, 45, 52),
    (215, 35, 40),
    (35, 80, 225),
    (255, 165, 60),
    (60, 205, 215),
    (250, 135, 195),
    (160, 125, 245),
)
# How far away the thing is that tells the class.
GROUPS = {
    'local': CLASSES[:3],
    'one hop': CLASSES[3:5],
    'two hops': CLASSES[5:],
}
FIRST_LABEL = {'flag': 1, 'box': 3, 'ring': 5}

OBJECT_SIZE = 12
# Pixels free between a box and its flag, and along both axes between a ring
# and its flag: farther than the convolutions of configs/demo see.
REACH = 28
# Pixels free between an object's row or column and what would mislead it.
CLEARANCE = 8
MIN_SIZE = 84
CHAINS = 2
# Pictures that differ in nothing but the colours of the flags.
VARIANTS = 2**CHAINS

Spot = tuple[int, int]


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Args:
        id: Number within the scene.
        kind: 'flag', 'box' or 'ring'.
        y: Top edge in pixels.
        x: Left edge in pixels.
        colour: Which of the kind's two classes, 0 or 1.
        told_by: Id of the object in the same row or column that tells the
            class; None for flags.
    """

    id: int
    kind: str
    y: int
    x: int
    colour: int
    told_by: int | None = None

    @property
    def label(self) -> int:
        """Index of the object's class in ``CLASSES``."""
        return FIRST_LABEL[self.kind] + self.colour


@dataclass(frozen=True)
class Scene:
    """A square scene.

    Args:
        size: Height and width in pixels.
        texture: Seed of the ground and of the objects' shading.
        objects: Back to front; ids are positions.
    """

    size: int
    texture: int
    objects: tuple[SceneObject, ...]


def random_state(seed: int) -> np.random.RandomState:
    """Make random numbers of a seed.

    Args:
        seed: 0 to 2**32 - 1.

    Raises:
        UserError: The seed is another number.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f'seed (--seed) must be 0 to 2**32 - 1, got {seed}.')
    return np.random.RandomState(seed)


def make_scenes(seed: int, number: int, size: int = 96) -> Iterator[Scene]:
    """Make scenes in fours that differ only in the colours of the flags.

    The four show one layout with each colouring of its two flags. A model
    that does not see a box's own flag from that box answers alike for two
    scenes in which its class differs, so it is right for half of the pixels
    and its mean IoU over the two classes of boxes is at most 1/3. The same
    holds for rings.

    Args:
        seed: Seed of the layouts.
        number: Number of scenes, a multiple of 4.
        size: Height and width in pixels, at least 84.

    Yields:
        The next scene.

    Raises:
        UserError: ``number`` or ``size`` is not as above.
    """
    if number < 1 or number % VARIANTS:
        raise UserError(
            f'got {number} scenes, expected a positive multiple of '
            f'{VARIANTS}: classes are balanced over {VARIANTS} scenes'
        )
    if size < MIN_SIZE:
        raise UserError(
            f'got pictures of {size} pixels, expected at least {MIN_SIZE}: '
            'nothing would be far from anything'
        )
    # numpy's frozen generator: the same numbers in every version.
    random = random_state(seed)
    for _ in range(number // VARIANTS):
        while (chains := _layout(random, size)) is None:
            pass
        texture = int(_draw(random, 2**32, 1)[0])
        for variant in range(VARIANTS):
            objects = []
            for index, spots in enumerate(chains):
                told_by = None
                for kind, (y, x) in zip(FIRST_LABEL, spots, strict=True):
                    colour = variant >> index & 1
                    item = SceneObject(
                        len(objects), kind, y, x, colour, told_by
                    )
                    told_by = item.id
                    objects.append(item)
            yield Scene(size, texture, tuple(objects))


def _draw(random: np.random.RandomState, below: int, number: int) -> list[int]:
    # The default dtype, and with it the numbers, varies between systems.
    return random.randint(below, size=number, dtype=np.int64).tolist()


def _layout(
    random: np.random.RandomState, size: int
) -> list[tuple[Spot, Spot, Spot]] | None:
    """Place chains of a flag, a box and a ring, or give up."""
    chains = []
    for _ in range(CHAINS):
        for _ in range(50):
            chain = _chain(random, size)
            if chain and all(_apart(chain, other) for other in chains):
                chains.append(chain)
                break
        else:
            return None
    return chains


def _chain(
    random: np.random.RandomState, size: int
) -> tuple[Spot, Spot, Spot] | None:
    """Place a box at the corner of an L, flag and ring at its ends."""
    span = size - OBJECT_SIZE + 1
    y, x, along_row, along_column = _draw(random, span, 4)
    if min(_gap(x, along_row), _gap(y, along_column)) < REACH:
        return None
    ends = [(y, along_row), (along_column, x)]
    (first,) = _draw(random, 2, 1)
    return ends[first], (y, x), ends[1 - first]


def _gap(a: int, b: int) -> int:
    """Pixels free between two objects along an axis, negative if none."""
    return abs(a - b) - OBJECT_SIZE


def _apart(chain: tuple, other: tuple) -> bool:
    """Whether two chains neither overlap nor mislead each other."""
    for i, a in enumerate(chain):
        for j, b in enumerate(other):
            gaps = _gap(a[0], b[0]), _gap(a[1], b[1])
            # Two boxes in a row are no trouble; a box would not know which
            # of two flags is its own.
            if min(gaps) < CLEARANCE and i != j:
                return False
            if max(gaps) < 2:
                return False
    return True
