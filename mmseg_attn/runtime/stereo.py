# Copyright (c) mmseg_attn contributors.
"""Run an exported stereo network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..inference.samples import Sample
from ..pictures.stereo import read_stereo_pair
from .card import STEREO
from .runner import ExportedRunner


class ExportedStereoMatcher(ExportedRunner):
    """Predict the disparities of pairs.

    Arguments as of :class:`~mmseg_attn.runtime.runner.ExportedRunner`.
    """

    task = STEREO

    def prepare(self, image: tuple[str | Path, str | Path]) -> Sample:
        """Read a pair.

        Args:
            image: Paths of the left and the right picture.

        Returns:
            With the left picture.

        Raises:
            UserError: They are no two paths, a file is no whole picture, or
                the two differ in size.
        """
        given = image if isinstance(image, (tuple, list)) else [image]
        paths = [item for item in given if isinstance(item, (str, Path))]
        if len(given) != 2 or len(paths) != 2:
            kinds = ', '.join(type(item).__name__ for item in given)
            raise UserError(
                f'the pair is of {kinds or "nothing"}, expected the paths of '
                'two pictures, (left, right).'
            )
        pair = read_stereo_pair(*image, self.depth)
        return Sample(pair[0], {'inputs': np.stack(list(map(self.fit, pair)))})

    def __call__(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Predict disparities.

        Args:
            samples: Pairs of one size.

        Returns:
            One (H, W) map of each pair, float32, in pixels of the picture.
        """
        return list(self.run(self.gather(samples)))
