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
        # Whether a map has a class but the first, and whether it has the
        # ignored label -> how many do, and the first of them.
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
            (
                bool(labels - {0, self.ignore_index}),
                self.ignore_index in labels,
            ),
            [0, path],
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
            A line if some maps have a class beside the first, others the
            ignored label, but none has both.
        """
        drawn = self._drawn.get((True, False))
        other = self._drawn.get((False, True))
        both = (True, True) in self._drawn
        if self._changed or len(self.classes) < 2 or both:
            return []
        if not (drawn and other):
            return []
        value, name = self.ignore_index, self.classes[1]
        return [
            f'{drawn[0]} masks hold {name} or later classes and no {value} '
            f'({drawn[1]}), {other[0]} hold {value} and none of these '
            f'({other[1]}), and {value} is ignored. If {value} means a class '
            'there, save these with its index in its place.'
        ]
