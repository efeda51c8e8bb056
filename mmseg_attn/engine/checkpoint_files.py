# Copyright (c) mmseg_attn contributors.
"""Read the files of checkpoints without running what is in them."""

import os
import pickle
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from ..errors import UserError, near
from ..hosts import HostError
from .safetensors_files import is_safetensors, read_safetensors

ZIP = b'PK\x03\x04'


def read_file(
    path: str | Path,
    map_location: str | torch.device | Callable | None = 'cpu',
    name: str | None = None,
) -> object:
    """Read a file of torch.save with ``weights_only``, or of safetensors.

    Args:
        path: The file.
        map_location: Device of the tensors, as for ``torch.load``.
        name: What to call it in messages; by default its path.

    Returns:
        What was saved.

    Raises:
        UserError: The file is missing, empty, cut off, damaged, a web page,
            refused by ``weights_only``, or otherwise of neither format.
    """
    path = os.path.expanduser(path)
    name = name or path
    check_file(path, name)
    if is_safetensors(path):
        known = isinstance(map_location, (str, torch.device))
        return read_safetensors(path, name, map_location if known else 'cpu')
    _check_sums(path, name)
    safe_globals = getattr(torch.serialization, 'safe_globals', None)
    if not safe_globals:  # torch 2.4
        torch.serialization.add_safe_globals(_data_types())
    allowed = safe_globals(_data_types()) if safe_globals else nullcontext()
    try:
        with allowed:
            return torch.load(
                path, map_location=map_location, weights_only=True
            )
    except Exception as error:
        reason = _explain(path, name, error)
        if reason is None:
            raise
        raise UserError(f'checkpoint {name} {reason}') from error


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


def check_file(path: str, name: str) -> None:
    """Tell the files that are no checkpoint at all.

    Args:
        path: The file.
        name: What to call it in messages.

    Raises:
        UserError: It is missing, empty, a folder, a web page or a pointer, or
            in a format that cannot be read safely.
    """
    file = Path(path)
    if not file.exists():
        folder = file.parent
        if not folder.is_dir():
            raise UserError(
                f'checkpoint {name} does not exist, nor does its folder.'
            )
        names = [entry.name for entry in folder.glob('[!.]*')]
        hint = near(file.name, names, cutoff=0.5)
        others = sorted(name for name in names if name.endswith('.pth'))
        if others and not hint:
            hint = f' Its folder holds {", ".join(others[:3])}.'
        raise UserError(f'checkpoint {name} does not exist.{hint}')
    if file.is_dir():
        # Hidden ones were never finished.
        names = sorted(entry.name for entry in file.glob('[!.]*.pth'))
        raise UserError(
            f'checkpoint {name} is a folder: name a file'
            + (f', such as {names[-1]}.' if names else ' (it holds no .pth).')
        )
    if not file.stat().st_size:
        raise UserError(
            f'checkpoint {name} is empty (0 bytes): copy or download it again.'
        )
    if is_safetensors(path):
        return
    with open(path, 'rb') as stream:
        start = stream.read(512).lstrip()
    if start[:1] == b'<':
        raise UserError(
            f'checkpoint {name} is a web page, not a checkpoint: the download '
            'got an error page. Check the address and download it again.'
        )
    if start.startswith(b'version https://git-lfs'):
        raise UserError(
            f'checkpoint {name} is a Git LFS pointer: run "git lfs pull".'
        )
    # torch up to 2.5 runs what is in one, even with weights_only.
    if not start.startswith(ZIP) and tarfile.is_tarfile(path):
        raise UserError(
            f'checkpoint {name} is in the tar format of torch before 0.2, '
            'which cannot be loaded safely: load it with an old torch, if you '
            'trust it, and save it again.'
        )


def _check_sums(path: str, name: str) -> None:
    """Compare the sums in torch's zip files: torch itself does not.

    Numbers that changed on a disk or on their way would be used without a
    word. Files of torch before 1.6 have none.
    """
    with open(path, 'rb') as stream:
        if stream.read(4) != ZIP:
            return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (
        ValueError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        size = os.path.getsize(path)
        raise UserError(
            f'checkpoint {name} is cut off or damaged ({size:,} bytes): copy '
            'or download it again.'
        ) from None
    if damaged:
        raise UserError(
            f'checkpoint {name} is damaged: {damaged} in it has a wrong sum. '
            'Copy or download it again.'
        )


def _explain(path: str, name: str, error: Exception) -> str | None:
    """Say why torch.load failed, or None where it is not the file."""
    text = str(error)
    if HostError.OUT_OF_MEMORY.found_in(error) or isinstance(
        error, (PermissionError, MemoryError)
    ):
        return None
    with open(path, 'rb') as stream:
        start = stream.read(4)
    size = f'{os.path.getsize(path):,} bytes'
    file = name.rpartition('/')[2] if '://' in name else name
    refused = re.search(
        r"(?:GLOBAL |but got <class '|unrecognized function )([^\s']+)", text
    )
    if refused:
        return (
            f'holds the Python object {refused[1]} besides weights, and '
            'loading that could run code. If you trust where it comes from, '
            + ('download it and ' if '://' in name else '')
            + 'keep its weights alone: python -c "import torch; torch.save('
            f"torch.load('{file}', map_location='cpu', weights_only=False)"
            "['state_dict'], 'weights.pth')\""
        )
    if 'Unsupported operand' in text:
        return 'was written by pickle: expected a file that torch.save wrote.'
    if start == ZIP and 'archive' in text:
        return (
            'is a zip archive that torch.save did not write (a program of '
            'TorchScript, or packed files): expected a state dict that '
            'torch.save wrote.'
        )
    if start == ZIP or start[:1] == b'\x80':
        return f'is cut off or damaged ({size}): copy or download it again.'
    return (
        f'is not a checkpoint of torch ({size}, beginning {start!r}): '
        'expected a file that torch.save wrote.'
    )
