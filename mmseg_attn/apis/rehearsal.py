# Copyright (c) mmseg_attn contributors.
"""Some steps of a training, to tell how long all of it will take.

``python -m mmseg_attn.apis.rehearsal CONFIG`` prints one JSON object: in a
process of its own, whose peak memory is its own.
"""

import json
import signal
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..engine.runner import build_runner
from ..errors import UserError, run_command
from ..hosts import HostError
from .peak_memory import PeakMemory

# Steps that warm up, and that are measured after them.
FIRST, MEASURED = 3, 10
# Validation pictures that are measured.
PICTURES = 8


class OutOfMemory(UserError):
    """A training's first steps need more memory than there is."""


@dataclass(frozen=True)
class Cost:
    """What a training costs.

    Attributes:
        step: Seconds of a training step.
        picture: Seconds of a validation picture.
        start: Seconds until the first step.
        memory: Most memory held, in bytes: on the GPU if one is used.
        note: Which weights the file that it starts from does not give; or
            nothing.
    """

    step: float
    picture: float
    start: float
    memory: float
    note: str = ''

    def seconds(self, iters: int, validations: int, pictures: int) -> float:
        """Time of a whole training.

        Args:
            iters: Steps.
            validations: How often it validates.
            pictures: Validation pictures.
        """
        each = pictures * self.picture
        return self.start + iters * self.step + validations * each


def rehearse(cfg: Config) -> Cost:
    """Run some steps of a training in a process of its own.

    Args:
        cfg: Its config. Nothing of it is changed or written.

    Returns:
        What they cost.

    Raises:
        OutOfMemory: They need more memory than there is.
        UserError: They fail otherwise; says why.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, 'config.py')
        # No one reads this file: making it pretty takes as long as some steps.
        cfg = Config(cfg.to_dict(), format_python_code=False)
        cfg.work_dir = folder
        cfg.dump(path)
        done = subprocess.run(
            [sys.executable, '-m', __name__, str(path)],
            capture_output=True,
            text=True,
        )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        # Out of memory, Linux kills.
        killed = done.returncode == -signal.SIGKILL
        if killed or HostError.OUT_OF_MEMORY.found_in(done.stderr):
            raise OutOfMemory(
                'the first steps of the training need more memory than '
                'there is. Give a smaller --batch-size or --crop.'
            )
        said = done.stderr.strip().splitlines() or ['no message']
        reason = said[-1].removeprefix('Error: ')
        raise UserError(f'the first steps of the training failed: {reason}')
    return Cost(**json.loads(lines[-1]))


class _Clock(Hook):
    """Notes when steps and validation pictures are done."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.steps, self.pictures = [], []

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        self.steps.append(_now())

    def after_val_iter(self, runner: Runner, *args, **kwargs) -> None:
        self.pictures.append(_now())


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _median(times: list[float]) -> float:
    lapses = [b - a for a, b in pairwise(times)]
    return statistics.median(lapses) if lapses else 0.0


def main() -> None:
    """Run the steps of the config named on the command line."""
    begun = time.perf_counter()
    cfg = Config.fromfile(sys.argv[1], format_python_code=False)
    cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = FIRST + MEASURED
    cfg.val_dataloader.dataset.indices = PICTURES
    cfg.default_hooks.checkpoint.update(save_best=None, interval=10**9)
    cfg.log_level = 'ERROR'
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        runner = build_runner(cfg)
    notes = [str(w.message) for w in said]
    clock, memory = _Clock(), PeakMemory()
    runner.register_hook(clock)
    runner.register_hook(memory)
    started = time.perf_counter()
    runner.train()
    cost = dict(
        step=_median(clock.steps[FIRST - 1 :]),
        picture=_median(clock.pictures),
        start=started - begun,
        memory=memory.bytes,
        note=next((n for n in notes if n.startswith(f'{cfg.load_from} ')), ''),
    )
    print(json.dumps(cost))


if __name__ == '__main__':
    run_command(main)
