# Copyright (c) mmseg_attn contributors.
"""Plan a training on somebody's own pictures."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mmengine.config import Config

from ..errors import UserError
from ..files import whole
from ..markdown import markdown_table
from .own_coco import OwnInstances, instance_table, write_own_instances
from .own_config import own_config
from .own_data import OwnData, write_own_data
from .own_detector import own_detector
from .own_recipe import VALIDATIONS, Recipe
from .rehearsal import Cost, OutOfMemory, rehearse

# What divides the sides of crops: the stride of a backbone.
STEP = 32
# Of the memory that is there, what a training may plan with.
SHARE = 0.8
# Of the time, what validations may take, and how many there are at least.
VALIDATING, FEWEST = 0.15, 2
# What /proc/cpuinfo calls products of bfloat16: of x86-64, and of ARM.
BFLOAT16 = {'avx512_bf16', 'amx_bf16', 'bf16'}


@dataclass(frozen=True)
class Target:
    """What a training on one's own pictures learns to predict.

    Attributes:
        write: Writes what a dataset needs beside the pictures to a folder.
        config: Makes the config of data, that folder and a recipe.
        table: Shows the classes of data.
        largest: Side of crops at most, by the device, in pixels.
        batch: Pictures in a step by default.
        precision: Precision of products on a GPU with bfloat16, on another
            one, and on a CPU with bfloat16.
        strides: Whether the output stride is chosen.
        scaling: How pictures are scaled: words with a place for the side.
    """

    write: Callable[[OwnData | OwnInstances, Path], None]
    config: Callable[[OwnData | OwnInstances, Path, Recipe], Config]
    table: Callable[[OwnData | OwnInstances], str]
    largest: dict[str, int]
    batch: int
    precision: tuple[str | None, str | None, str | None]
    strides: bool
    scaling: str

    def of_device(self, device: str | None = None) -> dict:
        """Choose what depends on the device.

        Args:
            device: ``'cpu'`` to leave a GPU alone.

        Returns:
            Arguments of :class:`~mmseg_attn.apis.own_recipe.Recipe`: on a
            GPU an output stride of 8, which takes some three times as long
            as 16 does. Products have 16 bits where the device has
            instructions for them.
        """
        if device == 'cpu' or not torch.cuda.is_available():
            amp = self.precision[2] if _cpu_has_bfloat16() else None
            return dict(stride=16, amp=amp)
        new = torch.cuda.is_bf16_supported(including_emulation=False)
        return dict(stride=8, amp=self.precision[0 if new else 1])

    def fitting_crop(self, data: OwnData | OwnInstances) -> int:
        """Choose the side of crops by the pictures and the device.

        Args:
            data: What was read.

        Returns:
            Pixels, a multiple of 32.
        """
        largest = self.largest['cuda' if torch.cuda.is_available() else 'cpu']
        side = min(data.side(), largest)
        return max(2 * STEP, side // STEP * STEP)


@dataclass(frozen=True)
class Plan:
    """A training that can begin.

    Attributes:
        config: The file of its config.
        recipe: What is trained, and how.
        cost: What its first steps cost.
        data: What it is trained on.
        target: What it learns.
    """

    config: Path
    recipe: Recipe
    cost: Cost
    data: OwnData | OwnInstances
    target: Target

    def seconds(self) -> float:
        """Tell how long all of it takes."""
        pictures = len(self.data.splits['val'])
        return self.cost.seconds(self.recipe.iters, self._count, pictures)

    @property
    def _count(self) -> int:
        """Validations: fewer than asked for in a very short training."""
        return -(-self.recipe.iters // self.recipe.interval)

    def lines(self) -> list[str]:
        """Say what will be done, a line each."""
        recipe, data = self.recipe, self.data
        start = 'weights of ImageNet'
        if recipe.scratch:
            start = 'random weights'
        elif recipe.weights:
            start = recipe.weights
        what = recipe.published or f'{recipe.method} on {recipe.backbone}'
        train, val = (len(data.splits[s]) for s in ('train', 'val'))
        strides = self.target.strides and not recipe.published
        epochs = recipe.iters * recipe.batch / train
        return [
            f'{what}, from {start}',
            *filter(None, [self.cost.note]),
            f'{train} pictures to train on, {val} to validate with',
            (f'output stride {recipe.stride}, ' if strides else '')
            + f'products in {recipe.amp or "float32"}',
            f'{self.target.scaling.format(recipe.crop)}, {recipe.batch} in a '
            'step',
            f'{recipe.iters} steps ({epochs:.0f} times each picture), '
            f'{self._count} validations',
            f'{self.seconds() / 60:.1f} minutes at {self.cost.step:.2f} s a '
            f'step, {self.cost.memory / 2**30:.1f} GiB of memory',
            f'config: {self.config}',
        ]


def class_table(data: OwnData) -> str:
    """Show the classes and how often they occur.

    Args:
        data: What was read.

    Returns:
        A table in Markdown: share of the labelled pixels and number of
        pictures, by split.
    """
    rows = []
    for index, name in enumerate(data.classes.names):
        row = [name]
        for split in ('train', 'val'):
            pixels = data.pixels[split]
            share = 100 * pixels[index] / max(1, pixels.sum())
            row += [f'{share:.1f} %', str(data.pictures[split][index])]
        rows.append(row)
    header = ['class', 'train', 'pictures', 'val', 'pictures']
    return markdown_table(header, rows)


MASKS = Target(
    write=write_own_data,
    config=own_config,
    table=class_table,
    largest={'cuda': 512, 'cpu': 256},
    batch=8,
    precision=('bfloat16', 'float16', 'bfloat16'),
    strides=True,
    scaling='crops of {0} x {0} of pictures scaled to a shorter side of {0}',
)
INSTANCES = Target(
    write=write_own_instances,
    config=own_detector,
    table=instance_table,
    largest={'cuda': 1024, 'cpu': 320},
    batch=4,
    # mmcv's RoIAlign has no bfloat16.
    precision=('float16', 'float16', None),
    strides=False,
    scaling='pictures scaled to a longer side of {0}',
)


def plan_training(
    data: OwnData | OwnInstances,
    out: Path,
    recipe: Recipe,
    *,
    target: Target = MASKS,
    minutes: float | None = None,
    epochs: float | None = None,
) -> Plan:
    """Write the data and the config of a training, and measure some steps.

    Args:
        data: What was read.
        out: Folder of the training. It gets ``data`` and ``config.py``.
        recipe: What is trained, and how. Its batch is made smaller where the
            memory does not suffice.
        target: What is learnt, as the data have it.
        minutes: Time to fit the number of steps to.
        epochs: How often each picture is to be seen, instead of it.

    Returns:
        The plan.

    Raises:
        UserError: The time is too short, or the first steps fail.
    """
    if epochs is not None and not epochs > 0:
        raise UserError(f'got epochs {epochs:g}, expected a positive number.')
    folder = out / 'data'
    target.write(data, folder)

    def config(recipe: Recipe) -> Config:
        return target.config(data, folder, recipe)

    recipe, cost = _measured(config, recipe)
    pictures = len(data.splits['val'])
    if epochs is not None:
        steps = round(epochs * len(data.splits['train']) / recipe.batch)
        recipe = replace(recipe, iters=max(2, steps))
    elif minutes is not None:
        each = cost.seconds(0, 1, pictures) - cost.start
        count = int(VALIDATING * 60 * minutes / max(each, 1e-6))
        count = min(VALIDATIONS, max(FEWEST, count))
        beside = cost.seconds(0, count, pictures)
        left = 60 * minutes - beside
        if left < 20 * cost.step:
            raise UserError(
                f'{minutes:g} minutes leave no time to train: starting and '
                f'{count} validations take {beside / 60:.1f}. Give more, a '
                'smaller --crop or another --backbone.'
            )
        recipe = replace(
            recipe, iters=int(left / cost.step), validations=count
        )
    cfg = config(recipe)
    cfg.work_dir = str(out / 'run')
    path = out / 'config.py'
    with whole(path) as partial:
        cfg.dump(partial)
    return Plan(path, recipe, cost, data, target)


def _measured(
    config: Callable[[Recipe], Config], recipe: Recipe
) -> tuple[Recipe, Cost]:
    """A recipe whose batch fits, and its cost."""
    while True:
        try:
            cost = rehearse(config(recipe))
        except OutOfMemory:
            if recipe.batch <= 2:
                raise
        else:
            if recipe.batch <= 2 or not _too_large(cost):
                return recipe, cost
        recipe = replace(recipe, batch=recipe.batch // 2)


def _cpu_has_bfloat16() -> bool:
    """Linux says it; elsewhere nothing is known."""
    path = Path('/proc/cpuinfo')
    words = path.read_text().split() if path.exists() else ()
    return not BFLOAT16.isdisjoint(words)


def _too_large(cost: Cost) -> bool:
    if torch.cuda.is_available():
        free = torch.cuda.mem_get_info()[0]
    else:
        text = Path('/proc/meminfo')
        if not text.exists():
            return False
        lines = dict(line.split(':') for line in text.read_text().splitlines())
        free = 1024 * int(lines['MemAvailable'].split()[0])
    return cost.memory > SHARE * free
