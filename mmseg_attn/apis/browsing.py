# Copyright (c) mmseg_attn contributors.
"""Draw samples of a dataset as its pipeline leaves them."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.runner import set_random_seed
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..engine.config_errors import check_installed
from ..engine.data_checks import (
    check_instances,
    check_output_folder,
    check_paths,
)
from ..engine.runner import build_dataset
from ..engine.samples import load_sample
from ..errors import UserError
from ..files import whole
from ..progress import quiet_hosts
from ..visualization.overlay import as_bgr8
from ..visualization.samples import LabelPainter, SamplePainter
from .tasks import CLIPS, DETECTOR, SEGMENTOR, check_task, task_of

SOFTWARE = 'mmseg_attn browse_dataset'  # how a PNG is known as its own


class Browser:
    """Draws samples of a dataset of a config.

    Each PNG shows what the model gets, before its data preprocessor
    normalizes and pads it, and the same with its label map over it, of a
    detector with its boxes and masks. Of pictures that a test pipeline
    resizes, the label map is resized along.

    Args:
        cfg: Config of a segmentor or detector.
        out: Folder for the pictures.
        split: ``'train'``, ``'val'`` or ``'test'``.
        number: How many samples, of all if there are fewer.
        seed: Seed of their choice and augmentation.

    Attributes:
        notes: What is to be said of the annotations.
        size: How many samples the dataset has.

    Raises:
        UserError: The config or its data cannot be used, the folder belongs
            to a dataset, or a file there is not of this tool.
    """

    def __init__(
        self, cfg: Config, out: Path, *, split: str, number: int, seed: int
    ) -> None:
        if number < 1:
            raise UserError(f'--number must be 1 or more, got {number}.')
        check_task(cfg, SEGMENTOR, CLIPS, DETECTOR)
        check_installed(cfg)
        check_output_folder(cfg, out)
        loader = f'{split}_dataloader'
        check_paths(cfg, loader)
        self.notes = [
            f'{path}: {line}'
            for path, report in check_instances(cfg, loader).items()
            for line in report.warnings()
        ]
        with quiet_hosts():
            self._dataset = build_dataset(cfg, loader)
        self.size = len(self._dataset)
        set_random_seed(seed)
        chosen = np.random.choice(
            self.size, min(number, self.size), replace=False
        )
        self._targets = {
            index: out / f'{split}_{index:06d}.png'
            for index in sorted(chosen.tolist())
        }
        for path in self._targets.values():
            _check_own(path)
        draw = SamplePainter if task_of(cfg) is DETECTOR else LabelPainter
        self._painter = draw(self._dataset.metainfo)

    def draw(self) -> Iterator[tuple[Path, str | UserError]]:
        """Draw the samples one by one.

        Yields:
            The file, and the path of the sample's picture; or why it could
            not be drawn.
        """
        for index, path in self._targets.items():
            try:
                sample = load_sample(self._dataset, index)
                yield path, self._save(path, sample)
            except UserError as error:
                yield path, error

    def _save(self, path, sample):
        data = sample['data_samples']
        picture = sample['inputs']
        if picture.ndim == 4:  # a clip
            picture = picture[:, data.label_frame]
        picture = as_bgr8(picture.numpy().transpose(1, 2, 0))
        drawn = self._painter(picture, data)
        about = PngInfo()
        about.add_text('Software', SOFTWARE)
        with whole(path) as partial:
            Image.fromarray(drawn[..., ::-1]).save(partial, pnginfo=about)
        return os.fspath(data.img_path)


def _check_own(path):
    """Refuse to replace what this did not write."""
    if not path.exists():
        return
    try:
        with Image.open(path) as image:
            own = image.info.get('Software') == SOFTWARE
    except (UnidentifiedImageError, OSError):
        own = False
    if not own:
        raise UserError(
            f'{path} exists and was not written by this tool: name another '
            'folder with --out, or move it away.'
        )
