# Copyright (c) mmseg_attn contributors.
"""Read checkpoints from wherever a config or a command names them.

What mmengine loads by itself, pre-trained weights above all, comes through
here too: its own loaders run whatever code a file holds (those of
onedl-mmengine after ``weights_only`` has refused it). Importing this module
puts safe ones in their place.

The weights that this package's configs name are state dicts: those of
open-mmlab:// and torchvision, and those of MIT (sceneparsing.csail.mit.edu,
written by torch 0.3 or 0.4 in the format before zip). ``weights_only`` takes
their tensors, parameters and ordered dicts; the tests hold a file of each
format.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import torch
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from ..errors import UserError, near
from ..fetch import NotFetched, discard, fetch
from .checkpoint_files import read_file
from .finite import check_finite

WEB = ('http://', 'https://')
OPENMMLAB = ('open-mmlab://', 'openmmlab://')
TORCHVISION = ('torchvision://', 'modelzoo://')
MMCLS = ('mmcls://',)
# Stores that mmengine reads with clients of their own, which few have.
STORES = ('pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://')

MapLocation = str | torch.device | Callable | None


def read_checkpoint(
    name: str | Path, map_location: MapLocation = 'cpu'
) -> object:
    """Read a checkpoint without running what is in it.

    Args:
        name: A file, a URL of http(s), or a name that mmengine has for one
            (``open-mmlab://``, ``torchvision://``, ``mmcls://``). What comes
            from the web is kept where torch.hub keeps it.
        map_location: Device of the tensors, as for ``torch.load``.

    Returns:
        What was saved.

    Raises:
        UserError: It cannot be had, cannot be read safely, is damaged, or
            holds weights that are not finite.
    """
    name = str(name)
    place = _look_up(name)
    if place.startswith(WEB):
        content = _read_url(place, map_location)
    elif '://' in place:
        raise UserError(
            f'{name} cannot be loaded: expected a file, http(s)://, '
            'open-mmlab://, torchvision:// or mmcls://. Download it and name '
            'the file.'
        )
    else:
        content = read_file(place, map_location)
    check_finite(content, name)
    if name.startswith(MMCLS) and isinstance(content, dict):
        weights = content.get('state_dict', content)
        prefix = 'backbone.'
        content = {
            'state_dict': {
                key.removeprefix(prefix): value
                for key, value in weights.items()
                if key.startswith(prefix)
            }
        }
    return content


def _look_up(name: str) -> str:
    """Turn a name that mmengine has for a checkpoint into its place."""
    for prefixes, read_places in (
        (OPENMMLAB, mmengine_checkpoint.get_external_models),
        (TORCHVISION, mmengine_checkpoint.get_torchvision_models),
        (MMCLS, mmengine_checkpoint.get_mmcls_models),
    ):
        if not name.startswith(prefixes):
            continue
        scheme, _, key = name.partition('://')
        try:
            places = read_places()
        except ModuleNotFoundError as error:
            raise UserError(
                f'{name} needs {error.name}, which is not installed.'
            ) from error
        if prefixes is OPENMMLAB:
            renamed = mmengine_checkpoint.get_deprecated_model_names()
            key = renamed.get(key, key)
        if key not in places:
            raise UserError(
                f'{scheme}:// knows no weights {key}.{near(key, places)}'
            )
        place = places[key]
        if place.startswith(WEB):
            return place
        # Of the user's own list, $MMENGINE_HOME/open_mmlab.json.
        home = os.environ.get('MMENGINE_HOME') or os.path.join(
            os.environ.get('XDG_CACHE_HOME', '~/.cache'), 'mmengine'
        )
        return os.path.join(home, place)
    return name


def _read_url(url: str, map_location: MapLocation) -> object:
    """Download a checkpoint; it gets its name once it could be read."""
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (urlsplit(url).path.split('/')[-1] or 'index.html')
    with alone(folder):
        if not path.exists():
            part = path.with_name(f'{path.name}.part')
            fetch(url, part)
            try:
                content = read_file(part, map_location, url)
            except UserError:
                discard(part)
                raise
            os.replace(part, path)
            discard(part)
            return content
    try:
        return read_file(path, map_location)
    except UserError as error:
        raise UserError(
            f'{error} The name is that of {url}, which was downloaded '
            'earlier: remove the file to download it again.'
        ) from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let the processes of one training download one after the other.

    Args:
        folder: Where they download to.

    Yields:
        Nothing, when it is this process' turn.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network drives know no locks
            fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


# mmengine logs what follows load_from_ in the name of a loader.
def load_from_anywhere(
    filename: str, map_location: MapLocation = None
) -> object:
    """Read a checkpoint for mmengine, without running what is in it.

    Args:
        filename, map_location: Arguments of :func:`read_checkpoint`.

    Returns:
        What was saved.

    Raises:
        UserError: As of :func:`read_checkpoint`.
    """
    try:
        return read_checkpoint(filename, map_location)
    except NotFetched as error:
        raise UserError(
            f'{error} Or begin without these weights: --scratch (train '
            '--images), for a config --cfg-options with '
            'model.pretrained=None, model.backbone.init_cfg=None or '
            'load_from=None, whichever names them.'
        ) from error


CheckpointLoader.register_scheme(
    ['', *WEB, *OPENMMLAB, *TORCHVISION, *MMCLS, *STORES],
    load_from_anywhere,
    force=True,
)
