# Copyright (c) mmseg_attn contributors.
"""Kill small trainings, go on with --resume, and compare with one unharmed.

Each kill (SIGKILL) is at a drawn moment, every fourth within the writing of a
checkpoint. The losses of each iteration must be identical to those of the
training that nothing happened to, and so must the files in the work folder.
"""

import argparse
import io
import itertools
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import mmengine.runner.runner
import torch

from mmseg_attn.errors import UserError, run_command
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.engine import safe_checkpoint
    from mmseg_attn.engine.runner import build_runner

sys.path.insert(0, str(Path(__file__).parents[2] / 'tests/test_tools'))
from tiny_training import losses, tiny_config, write_dataset

# Of one training. The last of them is while it writes.
KILLS = 4
ITERATIONS = 16
OPTIONS = {
    'train_cfg.max_iters': ITERATIONS,
    'train_cfg.val_interval': 4,
    'default_hooks.checkpoint.max_keep_ckpts': 2,
    'default_hooks.checkpoint.save_best': 'mIoU',
}


def main() -> int:
    """Run the trainings, print the figures, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--kills', type=int, default=40)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if args.kills < 1:
        raise UserError(f'--kills is {args.kills}, expected 1 or more.')
    torch.set_num_threads(1)
    mmengine.runner.runner.collect_env = dict  # asks compilers for versions
    drawn = random.Random(args.seed)
    kills = [number % KILLS == KILLS - 1 for number in range(args.kills)]
    wrong = []
    with TemporaryDirectory() as folder:
        data = write_dataset(Path(folder) / 'data')
        whole = Path(folder) / 'whole'
        started = time.monotonic()
        end(start(data, whole))
        seconds = time.monotonic() - started
        expected, files = losses(whole), names(whole)
        if sorted(expected) != list(range(1, ITERATIONS + 1)):
            raise UserError(f'the training has the losses {expected}.')
        for first in range(0, len(kills), KILLS):
            work = Path(folder) / f'killed_{first}'
            for writing in kills[first : first + KILLS]:
                kill(data, work, drawn, writing, seconds)
            end(start(data, work))
            found = losses(work)
            wrong += [
                f'{work.name}: the loss of iteration {i} is {found.get(i)}, '
                f'expected {loss}'
                for i, loss in expected.items()
                if found.get(i) != loss
            ]
            there = names(work)
            wrong += [f'{work.name}: {n} is missing' for n in files - there]
            wrong += [f'{work.name}: {n} is too many' for n in there - files]
    print(
        f'{len(kills)} kills, {sum(kills)} of them while writing, in '
        f'{-(-len(kills) // KILLS)} trainings of {ITERATIONS} iterations: '
        f'{len(wrong)} differences in losses and files'
    )
    print(*wrong, sep='\n')
    return int(bool(wrong))


def start(
    data: Path, work: Path, prepare: Callable[[], None] | None = None
) -> int:
    """Begin a training or go on with it, in a process of its own.

    Args:
        data: The dataset.
        work: Its work folder.
        prepare: Called in the process.

    Returns:
        The number of the process.
    """
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        if prepare:
            prepare()
        cfg = tiny_config(data, work, **OPTIONS)
        cfg.resume = 'auto'
        build_runner(cfg).train()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end(number: int) -> int:
    """Wait for a process; one that fails by itself is an error.

    Args:
        number: Of the process.

    Returns:
        The signal that ended it, 0 where it came to its end.
    """
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    if status > 0:
        raise UserError(f'a training failed with exit code {status}.')
    return -status


def kill(
    data: Path, work: Path, drawn: random.Random, writing: bool, longest: float
) -> None:
    """Begin or go on, and kill it at a drawn moment before its end.

    Args:
        data: The dataset.
        work: The work folder.
        drawn: Where moments are drawn from.
        writing: Whether in the middle of writing a checkpoint.
        longest: Seconds of a training.
    """
    if writing:
        # Of the checkpoints that are still to come, one of the first two.
        count = drawn.randint(1, 2)
        killed = end(start(data, work, lambda: die_while_writing(count)))
    else:
        number = start(data, work)
        time.sleep(drawn.uniform(0.1, 0.6) * longest)
        os.kill(number, signal.SIGKILL)
        killed = end(number)
    if killed != signal.SIGKILL:
        raise UserError(f'{work.name} came to its end before it was killed.')


def die_while_writing(count: int) -> None:
    """Let this process be killed half way through a checkpoint.

    Args:
        count: Which one from now on.
    """
    coming = itertools.count(1)

    class Dying(io.FileIO):
        def write(self, content: bytes) -> int:
            if next(coming) < count:
                return super().write(content)
            super().write(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    safe_checkpoint.open = Dying


def names(work: Path) -> set[str]:
    """Files of a work folder, but for the config and log of each start."""
    files = {path.name for path in work.iterdir() if path.is_file()}
    return {name for name in files if not name.endswith('.py')}


if __name__ == '__main__':
    run_command(main)
