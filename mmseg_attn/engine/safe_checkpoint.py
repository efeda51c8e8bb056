# Copyright (c) mmseg_attn contributors.
"""Checkpoints that are written whole or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

from ..errors import UserError
from ..files import whole
from ..registry import HOOKS


class AtomicLocalBackend(LocalBackend):
    """Local files that are either written whole or not at all.

    The bytes go to a file beside the target, are flushed to the disk, and
    only then take the target's name: a checkpoint outlives a power cut.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file.

        Args:
            obj: What to write.
            filepath: The file, replaced only once the new one is complete.

        Raises:
            UserError: It cannot be written, say because the disk is full.
        """
        target = Path(filepath)
        try:
            with whole(target) as partial, open(partial, 'wb') as stream:
                stream.write(obj)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            free = shutil.disk_usage(target.parent).free
            raise UserError(
                f'cannot save {target}: {error.strerror}. It needs '
                f'{len(obj) / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are '
                'free. Earlier checkpoints are kept: make room, then go on '
                'with --resume.'
            ) from error


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, which never leaves a training without one.

    A checkpoint that has to make room is removed after its successor is on
    the disk, not before; files are written whole or not at all; and what is
    written loads with ``torch.load(weights_only=True)``. The arguments are
    those of mmengine's ``CheckpointHook``.
    """

    def before_train(self, runner: Runner) -> None:
        """Let all that is saved be written whole."""
        # mmengine saves through the backend registered for local paths.
        register_backend('local', AtomicLocalBackend, force=True, prefixes='')
        super().before_train(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn what ``weights_only`` refuses into plain values."""
        for key in ('meta', 'message_hub', 'param_schedulers'):
            if key in checkpoint:
                checkpoint[key] = _to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Give the message hub its history back in mmengine's type."""
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for key, value in scalars.items():
            if isinstance(value, dict):
                scalars[key] = HistoryBuffer(**value)

    def _save_checkpoint_with_step(self, *args, **kwargs) -> None:
        self._remove_last(super()._save_checkpoint_with_step, *args, **kwargs)

    def _save_best_checkpoint(self, *args, **kwargs) -> None:
        self._remove_last(super()._save_best_checkpoint, *args, **kwargs)

    def _remove_last(self, save: Callable, *args, **kwargs) -> None:
        """Save, then remove what mmengine would have removed first."""
        backend = self.file_backend
        self.file_backend = late = _LateRemoval(backend)
        try:
            save(*args, **kwargs)
        finally:
            self.file_backend = backend
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        kept = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}
        for remove, path in late.removals:
            if path not in kept:
                remove(path)


class _LateRemoval:
    """A file backend that notes what it should remove."""

    def __init__(self, backend: object) -> None:
        self._backend = backend
        self.removals: list[tuple[Callable, str]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removals.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.removals.append((self._backend.rmtree, path))


def _to_plain(value: object) -> object:
    """Turn numpy values and log histories into plain Python ones."""
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return dict(
            log_history=log.tolist(),
            count_history=count.tolist(),
            max_length=value.max_length,
        )
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_to_plain(item) for item in value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value
