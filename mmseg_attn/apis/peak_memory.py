# Copyright (c) mmseg_attn contributors.
"""The most memory that a training held."""

import re
import resource
import sys
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner


class PeakMemory(Hook):
    """Keeps the most memory that this process held so far.

    Each line of mmengine's log starts the GPU's count anew, so that what the
    GPU says at the end is that of the last few steps: looked at before.
    """

    priority = 'NORMAL'  # that of the log is lower

    def __init__(self) -> None:
        self._seen = 0

    @property
    def bytes(self) -> float:
        """The number of bytes, on the GPU if one is used."""
        return max(self._seen, _held())

    def _look(self, runner: Runner, *args, **kwargs) -> None:
        if torch.cuda.is_available():  # elsewhere nobody starts anew
            self._seen = self.bytes

    after_train_iter = after_val_iter = after_test_iter = _look


def _held() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path('/proc/self/status')
    if status.exists():  # ru_maxrss counts what the parent held, too
        (peak,) = re.findall(r'VmHWM:\s*(\d+) kB', status.read_text())
        return int(peak) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024
