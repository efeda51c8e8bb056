# Copyright (c) mmseg_attn contributors.
"""What the label maps of a dataset hold together, and what that tells."""

from collections import Counter
from collections.abc import Iterable, Sequence


class LabelSurvey:
    """Counts the labels of a dataset, map by map.

    Attributes:
        maps: Label maps that were counted.
        pictures: Class index -> maps that have it.

    Args:
        classes: Names of the dataset's classes.
        ignore_index: The label of pixels that count for nothing.
        changed: Whether the labels are others than the values in the files
            (``reduce_zero_label``, or classes that were chosen).
    """

    def __init__(
        self,
        classes: Sequence[str],
        ignore_index: int = 255,
        changed: bool = False,
    ) -> None:
        self.classes = tuple(map(str, classes))
        self.ignore_index = ignore_index
        self.maps = 0
        self.pictures: Counter[int] = Counter()
        # Of two classes: what is drawn with 1, with the ignored label, or
        # with both -> maps, and the first of them.
        self._drawn: dict[tuple[bool, bool], list] = {}
        self._changed = changed

    def add(self, path: object, labels: Iterable[int]) -> None:
        """Count a label map.

        Args:
            path: What to call it.
            labels: Those that occur in it.
        """
        labels = {int(label) for label in labels}
        self.maps += 1
        self.pictures.update(labels)
        kind = self._drawn.setdefault(
            (1 in labels, self.ignore_index in labels), [0, path]
        )
        kind[0] += 1

    def absent(self) -> list[str]:
        """Name the classes that no map has, in the order of the classes."""
        return [
            name
            for index, name in enumerate(self.classes)
            if not self.pictures[index]
        ]

    def black_and_white(self) -> list[str]:
        """Say that an ignored label stands where a class is meant.

        Returns:
            A line if the first class and the ignored label are all there is,
            though there are more classes.
        """
        found = set(self.pictures)
        if (
            self._changed
            or len(self.classes) < 2
            or found not in ({self.ignore_index}, {0, self.ignore_index})
        ):
            return []
        value, name = self.ignore_index, self.classes[1]
        both = ' and '.join(map(str, sorted(found)))
        return [
            f'the {self.maps} masks hold {both} alone, and {value} is '
            f'ignored: {", ".join(self.absent())} never occurs. If {value} '
            f'means {name}, as in black and white masks, save them with 1 in '
            f'its place (mask[mask == {value}] = 1).'
        ]

    def two_kinds(self) -> list[str]:
        """Say that some masks seem to draw a class with the ignored label.

        Returns:
            A line if, of two classes, some maps have the second and others
            the ignored label, but none has both.
        """
        one, other = (
            self._drawn.get((True, False)),
            self._drawn.get((False, True)),
        )
        if (
            self._changed
            or len(self.classes) != 2
            or not (one and other)
            or (True, True) in self._drawn
        ):
            return []
        value, name = self.ignore_index, self.classes[1]
        return [
            f'{one[0]} masks hold 1 and no {value} ({one[1]}), {other[0]} '
            f'hold {value} and no 1 ({other[1]}), and {value} is ignored. If '
            f'{value} means {name}, save these with 1 in its place.'
        ]
