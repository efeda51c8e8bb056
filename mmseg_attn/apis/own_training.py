# Copyright (c) mmseg_attn contributors.
"""Plan a training on somebody's own pictures."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import UserError
from ..files import whole
from ..markdown import markdown_table
from .own_config import VALIDATIONS, Recipe, own_config
from .own_data import OwnData, write_own_data
from .rehearsal import Cost, rehearse

# Sides of crops: what a backbone of stride 32 divides, and what fits.
STEP, LARGEST = 32, {'cuda': 512, 'cpu': 256}
# Of the memory that is there, what a training may plan with.
SHARE = 0.8
# Of the time, what validations may take, and how many there are at least.
VALIDATING, FEWEST = 0.15, 2
# So much less time must 16 bits take on a CPU to be worth their rounding.
FASTER = 0.9


@dataclass(frozen=True)
class Plan:
    """A training that can begin.

    Attributes:
        config: The file of its config.
        recipe: What is trained, and how.
        cost: What its first steps cost.
        data: What it is trained on.
    """

    config: Path
    recipe: Recipe
    cost: Cost
    data: OwnData

    def seconds(self) -> float:
        """Tell how long all of it takes."""
        pictures = len(self.data.splits['val'])
        validations = -(-self.recipe.iters // self.recipe.interval)
        return self.cost.seconds(self.recipe.iters, validations, pictures)

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
        epochs = recipe.iters * recipe.batch / train
        return [
            f'{what}, from {start}',
            *filter(None, [self.cost.note]),
            f'{train} pictures to train on, {val} to validate with',
            ('' if recipe.published else f'output stride {recipe.stride}, ')
            + (f'products in {recipe.amp or "float32"}'),
            f'crops of {recipe.crop} x {recipe.crop}, {recipe.batch} in a '
            f'step; pictures scaled to a shorter side of {recipe.crop}',
            f'{recipe.iters} steps ({epochs:.0f} times each picture), '
            f'{recipe.validations} validations',
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


def plan_training(
    data: OwnData,
    out: Path,
    recipe: Recipe,
    *,
    minutes: float | None = None,
    epochs: float | None = None,
) -> Plan:
    """Write the data and the config of a training, and measure some steps.

    Args:
        data: What was read.
        out: Folder of the training. It gets ``data`` and ``config.py``.
        recipe: What is trained, and how. Its batch is made smaller where the
            memory does not suffice.
        minutes: Time to fit the number of steps to.
        epochs: How often each picture is to be seen, instead of it.

    Returns:
        The plan.

    Raises:
        UserError: The time is too short, or the first steps fail.
    """
    folder = out / 'data'
    write_own_data(data, folder)
    recipe, cost = _measured(data, folder, recipe)
    pictures = len(data.splits['val'])
    if epochs is not None:
        steps = round(epochs * len(data.splits['train']) / recipe.batch)
        recipe = replace(recipe, iters=max(1, steps))
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
    cfg = own_config(data, folder, recipe)
    cfg.work_dir = str(out / 'run')
    path = out / 'config.py'
    with whole(path) as partial:
        cfg.dump(partial)
    return Plan(path, recipe, cost, data)


def _measured(
    data: OwnData, folder: Path, recipe: Recipe
) -> tuple[Recipe, Cost]:
    """A recipe whose batch fits, in the faster precision, and its cost."""
    cost = rehearse(own_config(data, folder, recipe))
    while recipe.batch > 2 and _too_large(cost):
        recipe = replace(recipe, batch=recipe.batch // 2)
        cost = rehearse(own_config(data, folder, recipe))
    if not torch.cuda.is_available() and recipe.amp is None:
        narrow = replace(recipe, amp='bfloat16')
        other = rehearse(own_config(data, folder, narrow))
        if other.step < FASTER * cost.step:
            return narrow, other
    return recipe, cost


def fitting_crop(data: OwnData) -> int:
    """Choose the side of crops by the pictures and the device.

    Args:
        data: What was read.

    Returns:
        Pixels, a multiple of 32.
    """
    largest = LARGEST['cuda' if torch.cuda.is_available() else 'cpu']
    side = min(data.short_side(), largest)
    return max(2 * STEP, side // STEP * STEP)


def of_device() -> dict:
    """Choose what depends on the device.

    Returns:
        Arguments of :class:`~mmseg_attn.apis.own_config.Recipe`: on a GPU an
        output stride of 8, which takes some three times as long as 16 does,
        and products of 16 bits.
    """
    if not torch.cuda.is_available():
        return dict(stride=16)
    wide = torch.cuda.is_bf16_supported(including_emulation=False)
    return dict(stride=8, amp='bfloat16' if wide else 'float16')


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
