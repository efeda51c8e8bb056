# Copyright (c) mmseg_attn contributors.
"""Checkpoints that are written whole or not at all."""

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from ..errors import UserError
from ..files import whole
from ..registry import HOOKS
from .finite import not_finite
from .pretrained import read_checkpoint

# Losses in a row that are not finite, whose steps a GradScaler leaves out,
# before a training in float16 is given up.
SKIPPED_STEPS = 20
# What a checkpoint replaces, in the message hub that it holds.
REPLACED = 'replaced_checkpoints'


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
    written loads with ``torch.load(weights_only=True)``. Weights that are not
    finite are never written: a training whose loss or weights become NaN or
    infinite stops. What a killed training left behind is cleared by the one
    that goes on from it.

    Args:
        args: Arguments of mmengine's ``CheckpointHook``.
        stop_on_nonfinite: Stop at the first loss or weight that is not finite.
            Otherwise it is said, and nothing is saved while weights are not
            finite.
        kwargs: Options of mmengine's ``CheckpointHook``.
    """

    def __init__(
        self, *args: Any, stop_on_nonfinite: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.stop_on_nonfinite = stop_on_nonfinite
        self._iteration: int | None = None
        self._skipped = 0
        self._told = False

    def before_train(self, runner: Runner) -> None:
        """Let all that is saved be written whole, and clear leftovers.

        A validation that a kill may have stopped, behind the checkpoint that
        the training goes on from, is made up for.

        Args:
            runner: The runner.
        """
        # mmengine saves through the backend registered for local paths.
        register_backend('local', AtomicLocalBackend, force=True, prefixes='')
        super().before_train(runner)
        self._iteration = runner.iter
        if os.path.isdir(self.out_dir):
            self._take_over_best(runner)
            if is_main_process():
                self._clear(runner)
        if self._misses_validation(runner):
            runner.val_loop.run()

    def after_train(self, runner: Runner) -> None:
        """End the checks of what is trained."""
        self._iteration = None
        super().after_train(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        """Look at the loss, which the log has fetched already, then save.

        Args:
            runner: The runner.
            batch_idx: Number of the batch in its epoch.
            data_batch: The batch.
            outputs: The losses.

        Raises:
            UserError: The loss or a weight to be saved is not finite.
        """
        self._iteration = runner.iter + 1
        self._check_loss(runner, outputs or {})
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def before_val(self, runner: Runner) -> None:
        """Look at the weights before time is spent on a validation.

        Args:
            runner: The runner.

        Raises:
            UserError: One is not finite.
        """
        if self._iteration is not None:
            self._has_bad_weights(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn what ``weights_only`` refuses into plain values.

        Args:
            runner: The runner.
            checkpoint: What is to be saved.
        """
        for key in ('meta', 'message_hub', 'param_schedulers'):
            if key in checkpoint:
                checkpoint[key] = _to_plain(checkpoint[key])
        late, names = getattr(self, 'file_backend', None), []
        while isinstance(late, _LateRemoval):
            names += [path for _, path in late.removals]
            late = late._backend
        names = [
            os.path.basename(path) for path in names if path not in self._kept
        ]
        hub = checkpoint.get('message_hub') or {}
        hub.setdefault('runtime_info', {})[REPLACED] = names

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Give the message hub its history back in mmengine's type."""
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for key, value in scalars.items():
            if isinstance(value, dict):
                scalars[key] = HistoryBuffer(**value)

    def _save_checkpoint_with_step(
        self, runner: Runner, *args, **kwargs
    ) -> None:
        if not self._has_bad_weights(runner):
            save = super()._save_checkpoint_with_step
            self._remove_last(save, runner, *args, **kwargs)

    def _save_best_checkpoint(self, runner: Runner, *args, **kwargs) -> None:
        if not self._has_bad_weights(runner):
            save = super()._save_best_checkpoint
            self._remove_last(save, runner, *args, **kwargs)

    def _check_loss(self, runner: Runner, outputs: dict) -> None:
        losses = {
            name: float(value.detach())
            for name, value in outputs.items()
            if 'loss' in name
            and isinstance(value, torch.Tensor)
            and value.numel() == 1
        }
        total = losses.pop('loss', 0.0)
        if math.isfinite(total):
            self._skipped, self._told = 0, False
            return
        parts = [k for k, value in losses.items() if not math.isfinite(value)]
        self._skipped += 1
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        # A GradScaler leaves such a step out, and the weights stay good.
        if (
            scaler is None
            or self._skipped >= SKIPPED_STEPS
            or not_finite(_tensors(runner.model))
        ):
            what = f' ({", ".join(parts)})' if parts else ''
            self._tell(runner, f'the loss is {total}{what}')

    def _has_bad_weights(self, runner: Runner) -> bool:
        """Look at parameters and buffers: a few ms, with one answer."""
        tensors = _tensors(runner.model)
        found = not_finite(tensors)
        # Of sharded weights each process has others; all must save, or none.
        place = next(iter(tensors.values()), torch.zeros(())).device
        bad = torch.tensor(float(found is not None), device=place)
        all_reduce(bad, 'max')
        if not bad:
            return False
        found = (found or 'one of another process').removeprefix('module.')
        self._tell(runner, f'a weight is not finite, {found}')
        return True

    def _tell(self, runner: Runner, what: str) -> None:
        """Stop the training, or say once that it goes on."""
        good = self.last_ckpt or (runner._resume and runner._load_from)
        good = (
            f'the last good checkpoint is {good}'
            if good
            else 'no checkpoint was saved before'
        )
        what = f'iteration {self._iteration}: {what}; {good}.'
        key = 'default_hooks.checkpoint.stop_on_nonfinite=False'
        if self.stop_on_nonfinite:
            raise UserError(
                f'{what} The training stops, since what it would save is of '
                'no use. Lower the learning rate, clip the gradients '
                '(optim_wrapper.clip_grad=dict(max_norm=1)) or look at the '
                f'labels, then go on with --resume. {key} goes on regardless.'
            )
        if not self._told:
            runner.logger.warning(
                f'{what} It goes on because of {key}; nothing is saved while '
                'weights are not finite.'
            )
        self._told = True

    def _take_over_best(self, runner: Runner) -> None:
        """Know a best checkpoint that was saved in the moment of the kill.

        It is written after the training's checkpoint of that iteration, which
        is then written anew to name it. If that did not come about, the
        validation is not repeated, and worse weights would count as better.
        """
        if not self.save_best or not runner.iter:
            return
        hub = runner.message_hub
        step = self.filename_tmpl.format(
            runner.epoch if self.by_epoch else runner.iter
        )
        for key in self.key_indicators:
            ending = '' if len(self.key_indicators) == 1 else f'_{key}'
            name = '*' if key == 'auto' else key.replace('/', '_')
            for path in Path(self.out_dir).glob(f'best_{name}_{step}'):
                known = hub.runtime_info.get(f'best_ckpt{ending}')
                if known and Path(known).name == path.name:
                    continue
                saved = read_checkpoint(path)['message_hub']['runtime_info']
                score = saved[f'best_score{ending}']
                hub.update_info(f'best_score{ending}', score)
                hub.update_info(f'best_ckpt{ending}', str(path))
                hub.update_info(REPLACED, saved.get(REPLACED, []))
                if ending:
                    self.best_ckpt_path_dict[key] = str(path)
                else:
                    self.best_ckpt_path = str(path)

    def _misses_validation(self, runner: Runner) -> bool:
        """Whether the checkpoint gone on from was saved before a validation.

        A best checkpoint of its iteration tells that it was done. Otherwise
        it may have been done, too; once more it gives the same figures.
        """
        loop = runner.train_loop
        epochs = isinstance(loop, EpochBasedTrainLoop)
        done, last = (
            (runner.epoch, runner.max_epochs)
            if epochs
            else (runner.iter, runner.max_iters)
        )
        if not done or runner.val_loop is None or done < loop.val_begin:
            return False
        loop._decide_current_val_interval()
        step = self.filename_tmpl.format(
            runner.epoch if self.by_epoch else runner.iter
        )
        return (done % loop.val_interval == 0 or done == last) and not any(
            str(value).endswith(f'_{step}')
            for key, value in runner.message_hub.runtime_info.items()
            if key.startswith('best_ckpt')
        )

    def _clear(self, runner: Runner) -> None:
        """Remove what the kill of this training left in its folder."""
        folder = Path(self.out_dir)
        left = list(folder.glob('.*.partial.pth'))
        replaced = runner.message_hub.runtime_info.get(REPLACED, [])
        left += [folder / Path(name).name for name in replaced]
        for path in left:
            if path.is_dir():  # of a strategy such as DeepSpeed's
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()

    def _remove_last(self, save: Callable, *args, **kwargs) -> None:
        """Save, then remove what mmengine would have removed first."""
        backend = self.file_backend
        self.file_backend = late = _LateRemoval(backend)
        try:
            save(*args, **kwargs)
        finally:
            self.file_backend = backend
        for remove, path in late.removals:
            if path not in self._kept:
                remove(path)

    @property
    def _kept(self) -> set[str | None]:
        """The newest checkpoint and the best ones."""
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        return {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}


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


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


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
