# Copyright (c) mmseg_attn contributors.
"""Choose the checkpoint that a training or test starts from."""

import os
import re
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ..errors import UserError
from .checkpoint import load_checkpoint


def resume(cfg: Config, train: bool) -> tuple[list[str], dict | None]:
    """Load the checkpoint to start from, if there is one.

    Args:
        cfg: The config. Its ``resume`` becomes what mmengine knows, a flag,
            and its ``load_from`` the checkpoint's path.
        train: Whether it is to train.

    Returns:
        What is worth a warning, a line each, and the checkpoint or None.

    Raises:
        UserError: It cannot be loaded or resumed from, or a new training
            would replace the checkpoints of an earlier one.
    """
    notes = _choose_checkpoint(cfg)
    if train and not cfg.resume:
        check_unused(cfg.work_dir)
    checkpoint = load_checkpoint(cfg.load_from) if cfg.load_from else None
    if cfg.resume:
        _check_resumable(cfg, checkpoint)
    return notes, checkpoint


def find_latest(work_dir: str | Path) -> str | None:
    """Find the newest training checkpoint of a folder that can be loaded.

    The file ``last_checkpoint`` comes first; where it or what it names is
    missing or broken (a moved folder, a crash), ``iter_*.pth`` and
    ``epoch_*.pth`` follow, newest first.

    Args:
        work_dir: A training's work folder.

    Returns:
        The checkpoint, or None where there is none at all.

    Raises:
        UserError: There are checkpoints, but none can be loaded.
    """
    work_dir = Path(work_dir)
    note = work_dir / 'last_checkpoint'
    # What a crash leaves in it may be no text at all.
    named = note.read_text(errors='replace') if note.is_file() else ''
    named = named.strip()
    # The note holds an absolute path: in a folder that was moved or copied
    # only its name is right.
    found = sorted(
        (
            path
            for path in work_dir.glob('*_*.pth')
            if re.fullmatch(r'(iter|epoch)_\d+\.pth', path.name)
        ),
        key=lambda path: int(path.stem.split('_')[1]),
        reverse=True,
    )
    candidates = [work_dir / Path(named).name, Path(named)] if named else []
    # Path.is_file raises what it does not know, such as names too long.
    candidates = [path for path in candidates + found if os.path.isfile(path)]
    errors = []
    for path in dict.fromkeys(path.resolve() for path in candidates):
        try:
            load_checkpoint(path)
            return str(path)
        except UserError as error:
            errors.append(str(error))
    if errors:
        raise UserError(
            f'no checkpoint in {work_dir} can be loaded: ' + ' '.join(errors)
        )
    return None


def check_unused(work_dir: str | Path) -> None:
    """Refuse to train over the checkpoints of an earlier training.

    Args:
        work_dir: The new training's work folder.

    Raises:
        UserError: There are some.
    """
    earlier = [
        path.name
        for pattern in ('iter_*.pth', 'epoch_*.pth')
        for path in Path(work_dir).glob(pattern)
    ]
    if earlier:
        raise UserError(
            f'{work_dir} holds {len(earlier)} checkpoint(s) of an earlier '
            f'training ({min(earlier)}, ...), which a new one would replace. '
            '--resume goes on from the newest; to start anew, name another '
            'folder with --work-dir or move them away.'
        )


def _choose_checkpoint(cfg: Config) -> list[str]:
    """Turn cfg.resume into what mmengine knows: a flag and load_from."""
    wanted, cfg.load_from = cfg.get('resume'), cfg.get('load_from')
    cfg.resume = bool(wanted)
    if not wanted or (wanted is True and cfg.load_from):
        return []
    if isinstance(wanted, str) and wanted != 'auto':
        cfg.load_from = wanted
        return []
    found = find_latest(cfg.work_dir)
    if found:
        cfg.load_from = found
        return []
    cfg.resume = False
    return [f'Nothing to resume in {cfg.work_dir}: starting anew.']


def _check_resumable(cfg: Config, checkpoint: dict) -> None:
    meta = checkpoint.get('meta') or {}
    if 'optimizer' not in checkpoint or 'iter' not in meta:
        raise UserError(
            f'{cfg.load_from} cannot be resumed from: it holds no state of '
            'the optimizer (best_*.pth and published files hold weights '
            'only). Start from its weights instead: --cfg-options '
            f'load_from={cfg.load_from}'
        )
    # The order of the samples follows from the seed, and mmengine takes the
    # checkpoint's seed only after the sampler has been built.
    randomness = cfg.setdefault('randomness', ConfigDict())
    if randomness.get('seed') is None:
        randomness['seed'] = meta.get('seed')
