# Copyright (c) mmseg_attn contributors.
"""Load checkpoints without running what is in them, and say what is wrong."""

import os
import pickle
import re
import tarfile
import warnings
from collections import OrderedDict
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ..errors import UserError, near
from ..hosts import HostError


def load_checkpoint(path: str | Path, map_location: str = 'cpu') -> dict:
    """Load a checkpoint with ``weights_only`` and explain what fails.

    Args:
        path: A file, or a URL that mmengine can load.
        map_location: Device of the tensors.

    Returns:
        The checkpoint: a state dict, or a dict that holds one.

    Raises:
        UserError: The file is missing, empty, cut off, a web page, refused
            by ``weights_only``, or otherwise no checkpoint.
    """
    path = str(path)
    if '://' in path:
        allow_openmmlab_types()
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location)
    else:
        check_file(path)
        checkpoint = _load_file(path, map_location)
    if not isinstance(checkpoint, dict) or not any(
        isinstance(value, torch.Tensor)
        for value in _weights(checkpoint).values()
    ):
        raise UserError(
            f'{path} holds no weights: expected a state dict or a dict with '
            f'"state_dict", got {_describe(checkpoint)}.'
        )
    return checkpoint


def load_weights(
    model: nn.Module, path: str | Path, strict: bool = True
) -> dict:
    """Load a checkpoint's weights into a model.

    Args:
        model: The model.
        path: As in :func:`load_checkpoint`.
        strict: Refuse a checkpoint that does not give every weight of the
            model in its shape. Surplus weights are passed over, with a
            warning where they are not of an auxiliary head. Without it, at
            least one weight must fit.

    Returns:
        The checkpoint.

    Raises:
        UserError: The checkpoint cannot be loaded or is of another model.
    """
    checkpoint = load_checkpoint(path)
    surplus = [
        key
        for key in match_weights(model, checkpoint, str(path), strict)
        if not key.startswith('auxiliary_head')
    ]
    if surplus:
        warnings.warn(
            f'{len(surplus)} weights of {path} have no place in the model '
            f'(first: {surplus[0]}): it may be of another config.',
            stacklevel=2,
        )
    return checkpoint


def match_weights(
    model: nn.Module, checkpoint: dict, name: str, strict: bool = True
) -> list[str]:
    """Load those weights of a checkpoint that fit, or say what does not.

    Args:
        model: The model. Weights that fit are taken over even when this
            raises.
        checkpoint: From :func:`load_checkpoint`.
        name: Its name in the message.
        strict: As in :func:`load_weights`.

    Returns:
        Surplus weights of the checkpoint, which have no place in the model.

    Raises:
        UserError: The checkpoint is of another model.
    """
    # A test-time-augmentation or DDP wrapper keeps the model in .module.
    if not hasattr(model, 'backbone') and hasattr(model, 'module'):
        model = model.module
    weights = _weights(checkpoint)
    metadata = getattr(weights, '_metadata', {})
    weights = OrderedDict(
        (re.sub(r'^module\.', '', key), value)
        for key, value in weights.items()
    )
    missing, unexpected, wrong = [], [], []

    # As nn.Module.load_state_dict, but the three lists are kept apart. The
    # modules' load hooks run, so renamed weights count as present.
    def load(module: nn.Module, prefix: str = '') -> None:
        module._load_from_state_dict(
            weights,
            prefix,
            metadata.get(prefix[:-1], {}),
            True,
            missing,
            unexpected,
            wrong,
        )
        for child_name, child in module.named_children():
            load(child, f'{prefix}{child_name}.')

    load(model)
    # torch fills in a missing count of batches, which is no weight.
    known = model.state_dict()
    own = {key for key in known if not key.endswith('num_batches_tracked')}
    fitting = len(own) - len(own.intersection(missing)) - len(wrong)
    if fitting > 0 and not (strict and (missing or wrong)):
        return unexpected
    parts = []
    if wrong:
        parts.append(
            f'{len(wrong)} of another shape (first: {_shape_note(wrong[0])})'
        )
    if missing:
        parts.append(f'{len(missing)} missing (first: {missing[0]})')
    if unexpected:
        parts.append(f'{len(unexpected)} unknown (first: {unexpected[0]})')
    raise UserError(
        f'{name} is a checkpoint of another model: of {len(own)} weights '
        f'{fitting} fit; ' + ', '.join(parts) + '. Use the config it was '
        'trained with (its number of classes and its channels included).'
    )


def allow_openmmlab_types() -> None:
    """Let ``weights_only`` loading pass what mmengine writes.

    Its checkpoints hold the log as HistoryBuffer and numpy values. mmengine
    0.10.7 does not allow them itself, so that torch 2.6 and later refuse its
    own checkpoints. The list allows data only, no code.
    """
    if hasattr(torch.serialization, 'add_safe_globals'):
        torch.serialization.add_safe_globals(_data_types())


def _history_method(owner: type, name: str) -> object:
    """Stand in for getattr, which a pickled HistoryBuffer asks for."""
    if owner is not HistoryBuffer:
        raise pickle.UnpicklingError(f'getattr of {owner} is refused')
    return getattr(owner, name)


def _data_types() -> list:
    """What mmengine's checkpoints hold besides tensors and plain values."""
    core = getattr(np, '_core', None) or np.core
    types = [HistoryBuffer, np.ndarray, np.dtype, slice]
    types += [type(np.dtype(code)) for code in '?bBhHiIlLqQefd']
    types.append((_history_method, 'builtins.getattr'))
    # numpy 1 and 2 write different module names.
    for module in ('numpy.core', 'numpy._core'):
        for name in ('_reconstruct', 'scalar'):
            function = getattr(core.multiarray, name)
            types.append((function, f'{module}.multiarray.{name}'))
    return types


def check_file(path: str) -> None:
    """Tell the files that are no checkpoint at all.

    Args:
        path: The file.

    Raises:
        UserError: It is missing, empty, a folder, a web page or a pointer.
    """
    file = Path(path)
    if not file.exists():
        folder = file.parent
        if not folder.is_dir():
            raise UserError(
                f'checkpoint {path} does not exist, nor does its folder.'
            )
        names = [entry.name for entry in folder.glob('[!.]*')]
        hint = near(file.name, names, cutoff=0.5)
        others = sorted(name for name in names if name.endswith('.pth'))
        if others and not hint:
            hint = f' Its folder holds {", ".join(others[:3])}.'
        raise UserError(f'checkpoint {path} does not exist.{hint}')
    if file.is_dir():
        # Hidden ones were never finished.
        names = sorted(entry.name for entry in file.glob('[!.]*.pth'))
        raise UserError(
            f'checkpoint {path} is a folder: name a file'
            + (f', such as {names[-1]}.' if names else ' (it holds no .pth).')
        )
    if not file.stat().st_size:
        raise UserError(
            f'checkpoint {path} is empty (0 bytes): copy or download it again.'
        )
    with open(path, 'rb') as stream:
        start = stream.read(512).lstrip()
    if start[:1] == b'<':
        raise UserError(
            f'checkpoint {path} is a web page, not a checkpoint: the download '
            'got an error page. Check the address and download it again.'
        )
    if start.startswith(b'version https://git-lfs'):
        raise UserError(
            f'checkpoint {path} is a Git LFS pointer: run "git lfs pull".'
        )


def _load_file(path: str, map_location: str) -> object:
    safe_globals = getattr(torch.serialization, 'safe_globals', None)
    allowed = safe_globals(_data_types()) if safe_globals else nullcontext()
    try:
        with allowed:
            return torch.load(
                path, map_location=map_location, weights_only=True
            )
    except Exception as error:
        reason = _explain(path, error)
        if reason is None:
            raise
        raise UserError(f'checkpoint {path} {reason}') from error


def _explain(path: str, error: Exception) -> str | None:
    """Say why torch.load failed, or None where it is not the file."""
    text = str(error)
    if HostError.OUT_OF_MEMORY.found_in(error) or isinstance(
        error, (PermissionError, MemoryError)
    ):
        return None
    with open(path, 'rb') as stream:
        start = stream.read(4)
    size = f'{os.path.getsize(path):,} bytes'
    if tarfile.is_tarfile(path):
        return (
            'is in the tar format of torch before 0.2, which cannot be '
            'loaded safely: load it with an old torch, if you trust it, and '
            'save it again.'
        )
    refused = re.search(r'GLOBAL (\S+)', text)
    if refused:
        return (
            f'holds the Python object {refused[1]} besides weights, and '
            'loading that could run code. If you trust where it comes from, '
            'keep its weights alone: python -c "import torch; torch.save('
            f"torch.load('{path}', map_location='cpu', weights_only=False)"
            "['state_dict'], 'weights.pth')\""
        )
    if 'Unsupported operand' in text:
        return 'was written by pickle: expected a file that torch.save wrote.'
    if start == b'PK\x03\x04' or start[:1] == b'\x80':
        return f'is cut off or damaged ({size}): copy or download it again.'
    return (
        f'is not a checkpoint of torch ({size}, beginning {start!r}): '
        'expected a file that torch.save wrote.'
    )


def _weights(checkpoint: dict) -> dict:
    """Find the state dict in a checkpoint."""
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), dict):
            return checkpoint[key]
    return checkpoint


def _describe(value: object) -> str:
    if isinstance(value, dict):
        keys = ', '.join(map(str, list(value)[:5]))
        return f'a dict with keys {keys}' if keys else 'an empty dict'
    return f'a {type(value).__name__}'


def _shape_note(message: str) -> str:
    """Shorten torch's message about one weight of another shape."""
    found = re.search(
        r'size mismatch for (\S+): .*?\[([^\]]*)\].*?\[([^\]]*)\]', message
    )
    if not found:
        return message
    return f'{found[1]}, ({found[2]}) in the file, ({found[3]}) in the model'
