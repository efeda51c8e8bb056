# Copyright (c) mmseg_attn contributors.
"""One small training of many."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from rich.progress import Progress

from ..apis.own_data import read_own_data
from ..apis.own_recipe import Recipe
from ..apis.own_training import MASKS
from ..apis.reproduction import use_data_root
from ..configs import load_config
from ..datasets.pairs import check_outside
from ..datasets.scenes import write_folder
from ..errors import UserError
from ..pictures import check_depth
from . import camvid
from .full import FullTraining
from .pictures import LARGEST, largest_class, prepare_pictures

# Configs of the two kinds of data, with the method in front.
SCENES = '{}_r18-s4_1xb8-1k_demo-scenes-96x96.py'
PICTURES = '{}_r18-s4_1xb8-1k_demo-pictures-128x128.py'
KINDS = ('images', 'masks')
WORKER = 'mmseg_attn.trials.worker'


@dataclass
class Result:
    """What came of one model.

    Attributes:
        metrics: In per cent, of the validation pictures.
        parameters: How many the model has.
        gflops: Operations on one training crop, 1e9, up to the logits; a
            multiplication and an addition being two.
        seconds: Time of the training.
        peak_memory_mb: Most memory the process held, on the GPU if it used
            one.
    """

    metrics: dict[str, float]
    parameters: int
    gflops: float
    seconds: float
    peak_memory_mb: float


@dataclass
class Data:
    """A dataset folder that was prepared.

    Attributes:
        folder: Where it lies.
        pattern: Name of the configs for it, with ``{}`` for the method.
        floor: Metrics of one who sees nothing, in per cent.
        floor_name: What to call that one.
        notes: What to tell the user.
        full: What is trained instead of the configs of ``pattern``; or None.
    """

    folder: Path
    pattern: str
    floor: dict[str, float]
    floor_name: str
    notes: list[str]
    full: FullTraining | None = None

    @property
    def size(self) -> str:
        """Width and height of training crops, in pixels."""
        if self.full:
            return f'{self.full.recipe.crop}x{self.full.recipe.crop}'
        # As the configs are named.
        return Path(self.pattern).stem.rpartition('-')[2]

    def start(self) -> str:
        """Say what trains, from which weights."""
        if not self.full:
            return 'from random weights'
        recipe = self.full.recipe
        weights = 'random weights' if recipe.scratch else 'weights of ImageNet'
        return f'on {recipe.backbone} from {weights}'

    def validation_files(self) -> list[tuple[Path, Path]]:
        """Name each validation picture and its mask, in order."""
        if self.full:
            return self.full.validation_files(self.folder)
        root, masks = (self.folder / f'{kind}/val' for kind in KINDS)
        files = (path for path in root.rglob('*') if path.is_file())
        names = sorted(path.relative_to(root) for path in files)
        return [
            (root / name, masks / name.with_suffix('.png')) for name in names
        ]


@dataclass(frozen=True)
class Setting:
    """What trials run on.

    Attributes:
        images: Folder of the user's pictures; None: drawn scenes.
        masks: Folder of their masks, of the same names.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None: the best there is.
        iters: Training iterations of each model; None: the config's.
        depth: Bits that 16-bit pictures use; None: all, or a refusal.
        classes: Names of the classes and perhaps their colours, as in a
            ``dataset.json``; None: what such a file or the masks say.
        full: Backbone of a comparison by the recipe of ``train --images``, a
            key of :data:`~mmseg_attn.configs.OWN_BACKBONES`; None: the small
            networks.
        scratch: Whether it begins with random weights.
        crop: Side of its training crops, in pixels; None: what fits.
        batch: Pictures in its step; None: the recipe's.
        camvid: Folder of CamVid, in place of pictures of the user's.

    Raises:
        UserError: The values do not fit together.
    """

    images: Path | None = None
    masks: Path | None = None
    device: str | None = None
    iters: int | None = None
    depth: int | None = None
    classes: dict | None = None
    full: str | None = None
    scratch: bool = False
    crop: int | None = None
    batch: int | None = None
    camvid: Path | None = None

    def __post_init__(self) -> None:
        own = (self.images, self.masks, self.depth, self.classes)
        if self.camvid and any(value is not None for value in own):
            raise UserError(
                '--camvid takes no --images, --masks, --classes and --depth.'
            )
        if (self.images is None) != (self.masks is None):
            raise UserError('give both --images and --masks, or neither.')
        if self.classes and self.images is None:
            raise UserError('--classes is for --images and --masks.')
        if self.camvid and self.full not in (None, 'r50'):
            raise UserError(
                f'got --full {self.full}, of --camvid there is r50 alone.'
            )
        if self.full and not (self.images or self.camvid):
            raise UserError('--full is for --images and --masks, or --camvid.')
        if self.full and self.depth:
            raise UserError('--full takes no --depth.')
        whole = self.full and not self.camvid
        if not whole and (self.scratch or self.crop or self.batch):
            raise UserError(
                '--scratch, --crop and --batch-size need --full and --images.'
            )
        if self.iters is not None and self.iters < 1:
            raise UserError(f'got --iters {self.iters}, expected at least 1.')
        check_depth(self.depth)

    @property
    def pattern(self) -> str:
        """Name of the configs, ``{}`` for the method; empty: of a recipe."""
        if self.camvid:
            return camvid.FULL if self.full else camvid.SMALL
        if self.images is None:
            return SCENES
        return '' if self.full else PICTURES

    def check_work_dir(self, work: Path) -> None:
        """Refuse to write among the user's pictures.

        Args:
            work: The folder for all output.

        Raises:
            UserError: It lies in that of the pictures or masks.
        """
        given = (self.images, self.masks, self.camvid)
        sources = [path for path in given if path]
        check_outside(work, sources, '--work-dir')


def prepare_data(folder: Path, setting: Setting, seed: int) -> Data:
    """Draw scenes, or make working copies of the user's pictures.

    Args:
        folder: Where to write the dataset.
        setting: What is to be prepared.
        seed: Seed of the scenes, or of the split.

    Returns:
        What is needed to train on it.

    Raises:
        UserError: The pictures cannot be used.
    """
    pattern = setting.pattern
    if setting.camvid:
        notes, floor = camvid.prepare_camvid(setting.camvid, folder)
        return Data(folder, pattern, floor, LARGEST, notes)
    if setting.images is None:
        write_folder(folder, seed)
        # See make_scenes: no better without seeing flags and lamps.
        floor = {'mIoU one hop': 100 / 3, 'mIoU two hops': 100 / 3}
        notes = ['640 training and 80 validation scenes drawn.']
        return Data(folder, pattern, floor, 'context unseen, at most', notes)
    if setting.full:
        return _prepare_full(folder, setting, seed)
    given = setting.images, setting.masks
    notes, floor = prepare_pictures(
        *given, folder, seed, setting.depth, setting.classes
    )
    return Data(folder, pattern, floor, LARGEST, notes)


def _prepare_full(folder: Path, setting: Setting, seed: int) -> Data:
    own = read_own_data(
        *(setting.images, setting.masks), seed=seed, classes=setting.classes
    )
    recipe = Recipe(
        backbone=setting.full,
        scratch=setting.scratch,
        crop=setting.crop or MASKS.fitting_crop(own),
        batch=setting.batch or MASKS.batch,
        **MASKS.of_device(setting.device),
    )
    full = FullTraining(own, recipe)
    full.write(folder)
    names = own.classes.names
    train, val = (len(own.splits[split]) for split in ('train', 'val'))
    notes = [
        *own.notes,
        f'{train} pictures to train on and {val} to validate with; '
        f'{len(names)} classes: {", ".join(names)}',
        *(f'Note: {line}.' for line in own.warnings()),
    ]
    floor = largest_class(names, own.pixels['val'])
    return Data(folder, setting.pattern, floor, LARGEST, notes, full)


def environment_of(device: str | None, threads: int | None = None) -> dict:
    """Let the processes see the chosen device alone.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:N`` or the best.
        threads: Threads of each process; None leaves it open.

    Returns:
        Environment variables.

    Raises:
        UserError: There is no such device.
    """
    environment = dict(os.environ)
    if threads:
        environment['OMP_NUM_THREADS'] = str(threads)
    if device is None:
        return environment
    kind, _, number = device.partition(':')
    if kind == 'cpu' and not number:
        environment['CUDA_VISIBLE_DEVICES'] = ''
    elif kind == 'cuda' and (not number or number.isdigit()):
        import torch

        if int(number or 0) >= torch.cuda.device_count():
            raise UserError(
                f'--device {device}: there are {torch.cuda.device_count()} '
                'CUDA devices here; try --device cpu.'
            )
        environment['CUDA_VISIBLE_DEVICES'] = number or '0'
    else:
        raise UserError(
            f'got --device {device}, expected cpu, cuda or cuda:N.'
        )
    return environment


def trial_config(
    method: str, data: Data, work: Path, seed: int, iters: int | None
) -> Config:
    """Make the config of one model as it is run.

    Args:
        method: Beginning of the config's name.
        data: The dataset.
        work: Folder of the training.
        seed: Seed of the training.
        iters: Iterations, if not those of the config.

    Returns:
        Trains, and tests once, after the training.
    """
    if data.full:
        cfg = data.full.config(method, data.folder, seed, iters)
        cfg.work_dir = str(work)
        return cfg
    cfg = load_config(data.pattern.format(method))
    content = json.loads((data.folder / 'dataset.json').read_text())
    cfg.model.decode_head.num_classes = len(content['classes'])
    cfg.work_dir = str(work)
    cfg.randomness = dict(seed=seed)
    # All report the same metrics of the same split.
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = dict(type='mmseg_attn.GroupIoUMetric')
    cfg.test_dataloader.dataset.metainfo = dict(groups=content['groups'])
    use_data_root(cfg, data.folder)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    if iters is not None:
        warm_up, decay = cfg.param_scheduler
        warm_up.end = decay.begin = min(warm_up.end, iters // 2)
        decay.end = cfg.train_cfg.max_iters = iters
        cfg.default_hooks.checkpoint.interval = iters
    return cfg


def run_trial(
    name: str,
    config: Path,
    environment: dict,
    progress: Progress,
    on_start: Callable[[subprocess.Popen], None] = lambda process: None,
    inherited: Sequence[int] = (),
) -> Result:
    """Train and test in a process of its own, whose peak memory is its own.

    Args:
        name: What to call it in its bar.
        config: A file that :func:`trial_config`'s result was dumped to; the
            log is written beside it.
        environment: Environment variables of the process.
        progress: Gets a bar.
        on_start: Called with the process.
        inherited: Open files that the process keeps open.

    Returns:
        What came of it.

    Raises:
        UserError: The training failed; the log has more.
    """
    total = load_config(config).train_cfg.max_iters
    task = progress.add_task(f'{name}: starting', total=total)
    log = config.with_suffix('.log')
    read, write = os.pipe()
    with open(log, 'w', encoding='utf-8') as file:
        process = subprocess.Popen(
            [sys.executable, '-m', WORKER, config, str(write)],
            stdout=file,
            stderr=file,
            env=environment,
            pass_fds=(write, *inherited),
        )
    os.close(write)
    message = {}
    try:
        on_start(process)
        with os.fdopen(read) as messages:
            for line in messages:
                message = json.loads(line)
                if 'iteration' in message:
                    progress.update(
                        task,
                        completed=message['iteration'],
                        description=f'{name}: loss {message["loss"]:.3f}',
                    )
                elif 'tested' in message:
                    progress.update(task, description=f'{name}: testing')
        process.wait()
    finally:
        process.kill()
    if process.returncode or 'metrics' not in message:
        progress.update(task, description=f'{name}: failed')
        lines = log.read_text(encoding='utf-8').strip().splitlines()
        reason = lines[-1].removeprefix('Error: ') if lines else 'no message'
        if process.returncode < 0:  # nobody had time for a last word
            reason = f'ended by {signal.Signals(-process.returncode).name}'
        raise UserError(f'{name} failed: {reason} (all of it in {log})')
    result = Result(**message)
    progress.update(
        task, description=f'{name}: mIoU {result.metrics["mIoU"]:.1f}'
    )
    return result
