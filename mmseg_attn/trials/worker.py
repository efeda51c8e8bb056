# Copyright (c) mmseg_attn contributors.
"""Train and test one model in a process of its own.

``python -m mmseg_attn.trials.worker CONFIG DESCRIPTOR`` writes one JSON
object a line to an open file descriptor, of its progress and last of its
result. What it prints is a log.
"""

import json
import math
import os
import sys
import time
from typing import TextIO

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..apis.complexity import segmentor_flops
from ..apis.peak_memory import PeakMemory
from ..configs import load_config
from ..engine.checkpoint import load_checkpoint
from ..engine.resume import find_latest
from ..engine.runner import build_runner
from ..errors import run_command


class _Report(Hook):
    """Send the loss to the command that shows the progress."""

    priority = 'LOWEST'

    def __init__(self, out: TextIO) -> None:
        self.out, self.loss = out, None

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        loss = outputs['loss'].item()
        # Of some twenty iterations, since that of one jumps.
        self.loss = (
            loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        )
        _send(self.out, iteration=runner.iter + 1, loss=self.loss)

    def after_test_iter(self, runner: Runner, batch_idx: int, *args, **kwargs):
        _send(self.out, tested=batch_idx + 1)


def _send(out: TextIO, **message) -> None:
    print(json.dumps(message), file=out, flush=True)


def main() -> None:
    """Run the config named on the command line."""
    config, descriptor = sys.argv[1:]
    out = os.fdopen(int(descriptor), 'w')
    cfg = load_config(config)
    runner = build_runner(cfg)
    runner.register_hook(_Report(out))
    memory = PeakMemory()
    runner.register_hook(memory)
    start = time.perf_counter()
    runner.train()
    seconds = time.perf_counter() - start
    # Where weights are averaged the checkpoint has the average. What the
    # training holds is something else: a test begins to average anew.
    kept = load_checkpoint(find_latest(cfg.work_dir))
    runner.model.load_state_dict(kept['state_dict'])
    metrics = runner.test()
    peak = memory.bytes / 1e6  # before the count of operations
    flops = segmentor_flops(runner.model, *cfg.crop_size)
    _send(
        out,
        # None of a class that is neither there nor predicted; JSON has no NaN.
        metrics={
            name: float(value)
            for name, value in metrics.items()
            if not math.isnan(value)
        },
        parameters=sum(p.numel() for p in runner.model.parameters()),
        gflops=sum(flops.values()) / 1e9,
        seconds=seconds,
        peak_memory_mb=peak,
    )


if __name__ == '__main__':
    run_command(main)
