# Copyright (c) mmseg_attn contributors.
"""Train a model of the zoo anew, and compare with what its row says."""

import copy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config, ConfigDict

from ..configs import SPLITS, load_config
from ..datasets.scenes import write_folder
from ..engine.data_checks import dataset_configs
from ..engine.resume import find_latest
from ..engine.runner import build_runner
from ..errors import UserError
from ..files import find_best
from ..metafiles import Row, find_row, short_names

# Data that need not be had: they are drawn.
SCENES = 'Drawn scenes'
# Points of mIoU by which the same weights may differ from machine to machine.
TOLERANCE = 0.1
# How many standard deviations of the seeds a training may be from their mean.
DEVIATIONS = 3


@dataclass(frozen=True)
class Reproduction:
    """A training that was done again.

    Attributes:
        row: What was to be reproduced.
        weights: What came of it.
        miou: Its mIoU on the validation pictures, in per cent.
    """

    row: Row
    weights: Path
    miou: float

    @property
    def allowed(self) -> float:
        """How far the mIoU may be from the mean of the row's seeds.

        Three standard deviations. On the machine of the first training the
        same seed gives the same figure; on another one sums are rounded
        otherwise, which does as much as another seed. Of one seed it is not
        known how much that is: no more than for the same weights.
        """
        return max(DEVIATIONS * (self.row.spread or 0), TOLERANCE)

    @property
    def agrees(self) -> bool:
        """Whether it is as near as that."""
        return abs(self.miou - self.row.mean) <= self.allowed


def reproduce(
    name: str,
    work_dir: str | Path | None = None,
    data_root: str | Path | None = None,
) -> Reproduction:
    """Train a row of the zoo anew, with its config and seed, and measure.

    The same call goes on where it was stopped.

    Args:
        name: The row's short name, or that of its config.
        work_dir: Folder of the training; by default ``work_dirs/`` and the
            row's short name.
        data_root: Folder of the data; by default that of the config. Scenes
            are drawn into the work folder.

    Returns:
        What came of it.

    Raises:
        UserError: The row was not trained here, or the data cannot be used.
    """
    row = find_own(name)
    work = Path(work_dir or f'work_dirs/{row.short}')
    if data_root is None and row.dataset == SCENES:
        data_root = work / 'data'
        if not (data_root / 'dataset.json').is_file():  # written last
            write_folder(data_root)
    cfg = load_config(row.config)
    seed = next(iter(row.seeds))
    cfg.setdefault('randomness', ConfigDict()).update(seed=seed)
    cfg.work_dir, cfg.resume = str(work), 'auto'
    use_data_root(cfg, data_root)
    build_runner(cfg).train()
    weights = find_best(work) or find_latest(work)
    return Reproduction(row, Path(weights), validate(cfg, weights)['mIoU'])


def find_own(name: str) -> Row:
    """Find a row of a model that was trained here.

    Args:
        name: Its short name, or that of its config.

    Returns:
        The row.

    Raises:
        UserError: There is none, or others trained the model.
    """
    row = find_row(name)
    if not row.short:
        raise UserError(
            f'{row.name} was trained by others, and its row does not say how: '
            f'expected one of {", ".join(short_names())}.'
        )
    return row


def use_data_root(cfg: Config, root: str | Path | None) -> None:
    """Let all datasets of a config read from another folder.

    Args:
        cfg: The config. It is changed.
        root: The folder; None leaves that of the config.
    """
    for split in SPLITS if root is not None else ():
        for dataset in dataset_configs(cfg.get(f'{split}_dataloader')):
            dataset.data_root = str(root)


def validate(cfg: Config, weights: str | Path) -> dict[str, float]:
    """Measure weights on the validation data of a config.

    Args:
        cfg: The config, which is not changed.
        weights: A checkpoint of its model.

    Returns:
        What its ``val_evaluator`` finds.

    Raises:
        UserError: The weights or the data cannot be used.
    """
    cfg = copy.deepcopy(cfg)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = cfg.val_evaluator
    cfg.test_cfg = ConfigDict(type='TestLoop')
    cfg.load_from, cfg.resume = str(weights), False
    with TemporaryDirectory() as folder:
        cfg.work_dir = folder  # of no use: its log
        # mmengine knows a runner by the second that it began in.
        cfg.experiment_name = Path(folder).name
        return build_runner(cfg, train=False).test()
