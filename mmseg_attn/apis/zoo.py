# Copyright (c) mmseg_attn contributors.
"""List, download and check trained models.

The rows are those of the package's metafiles, which mim reads too. mim checks
nothing of what it downloads; here nothing gets its name before it is checked.
The weights that were trained here come with the package: for these nothing
reaches for the network.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path

from .. import configs
from ..errors import UserError
from ..fetch import discard, fetch
from ..metafiles import Row, find_row, read_rows
from ..progress import quiet_imports

# A published file's name ends in the first 8 digits of its sha256. Not so
# here: MMSegmentation's publish_model.py takes them from the file it is given,
# that of the training. Where they differ, they are no proof of damage.
NAMED_BEFORE_PUBLISHING = (
    'https://download.openmmlab.com/mmsegmentation/',
    'https://mmassets.onedl.ai/mmsegmentation/',
)


def download(
    row: Row, folder: Path, retries: int = 4, timeout: float = 30.0
) -> tuple[Path, str]:
    """Put a checked checkpoint and its config, in one piece, into a folder.

    Args:
        row: Which.
        folder: The folder, made where it is not there.
        retries: Further tries after a broken connection.
        timeout: Seconds to wait for an answer.

    Returns:
        The checkpoint, and what was found in checking it.

    Raises:
        UserError: It cannot be had or is not good, or another file has its
            name, which is left as it was.
    """
    with quiet_imports():
        configs.write_config(row.config, folder)
    path = folder / row.file
    if path.exists():
        try:
            return path, check(path, row) + '; it was there already'
        except UserError as error:
            raise UserError(
                f'{path} is there already and is left as it is, but it is '
                f'not {row.url}: {error} Remove it or choose another --dest.'
            ) from error
    return path, _bring(row, path, retries, timeout)


def place_of(row: Row) -> Path:
    """Say where the weights of a row are or would be.

    Args:
        row: Which.

    Returns:
        The file that came with the package, else that in torch.hub's folder,
        downloaded or not.
    """
    if row.packaged:
        return row.packaged
    with quiet_imports():
        import torch

    return Path(torch.hub.get_dir(), 'checkpoints', row.file)


def find_weights(row: Row) -> Path:
    """Find the checked weights of a row, wherever they are.

    Args:
        row: Which.

    Returns:
        The file that came with the package, or the one that was downloaded,
        now or earlier, to where torch.hub keeps such files.

    Raises:
        UserError: They cannot be had or are not good.
    """
    path = place_of(row)
    if path == row.packaged:
        _check_hash(path, row)
        return path
    with quiet_imports():
        from ..engine.pretrained import alone

    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):
        if path.exists():
            _check_hash(path, row)
        else:
            _bring(row, path)
    return path


def chosen_weights(
    config: object, checkpoint: str | Path | None
) -> str | Path | None:
    """Put the zoo's weights in the place of the word ``'zoo'``.

    Args:
        config: What names the model.
        checkpoint: The weights, or ``'zoo'``.

    Returns:
        The weights, or what else was given.

    Raises:
        UserError: The zoo has none of this model, or they cannot be had.
    """
    if checkpoint != 'zoo':
        return checkpoint
    if not isinstance(config, (str, Path)):
        raise UserError(
            'the zoo finds weights by the name of a model: name it, or a '
            'checkpoint beside the config.'
        )
    return find_weights(find_row(config))


def _bring(
    row: Row, path: Path, retries: int = 4, timeout: float = 30.0
) -> str:
    """Copy or download a checkpoint; it gets its name once it is checked."""
    part = path.with_name(f'{path.name}.part')
    if row.packaged:
        shutil.copyfile(row.packaged, part)
    elif '://' in row.url:
        fetch(row.url, part, retries, timeout)
    else:
        raise UserError(
            f'{row.url} should have come with the package, and is not there: '
            'install it again.'
        )
    try:
        found = check(part, row)
    except UserError as error:
        discard(part)
        raise UserError(f'{row.url} is refused: {error}') from error
    os.replace(part, path)
    discard(part)
    return found


def check(path: Path, row: Row | None, config: Path | None = None) -> str:
    """Check a file: its kind, its hash, and whether it fits its config.

    Args:
        path: The checkpoint.
        row: What it should be.
        config: Its config; by default that of the row.

    Returns:
        What was found, as a line.

    Raises:
        UserError: It is not good, with the reason.
    """
    with quiet_imports():
        from ..engine.checkpoint_files import check_file

    check_file(str(path), str(path))
    found = _check_hash(path, row)
    config = config or row.config
    count = check_structure(path, config)
    return f'{found}; its {count} weights are those of {config.stem}'


def check_structure(path: Path, config: Path) -> int:
    """Check that a checkpoint has each weight of a config's model, no other.

    Args:
        path: The checkpoint. It is loaded with ``weights_only``.
        config: The config. Its model is built on the CPU, and nothing is
            downloaded for it.

    Returns:
        The number of tensors.

    Raises:
        UserError: They do not belong together.
    """
    with quiet_imports():
        from mmengine.registry import MODELS, init_default_scope

        from ..engine.checkpoint import load_checkpoint, match_weights
        from ..engine.config_errors import check_weight_files

        cfg = configs.load_config(config)
        check_weight_files(cfg.model)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        model = MODELS.build(cfg.model)
    surplus = match_weights(model, load_checkpoint(path), str(path))
    if surplus:
        raise UserError(
            f'{path} is a checkpoint of another model: {len(surplus)} of its '
            f'weights have no place in {config.name} (first: {surplus[0]}).'
        )
    return len(model.state_dict())


def sha256sum(path: Path) -> str:
    """Compute a file's sha256.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _check_hash(path: Path, row: Row | None) -> str:
    digest = sha256sum(path)
    found = f'sha256 {digest}'
    name = path.name.removesuffix('.part')
    expected = row and row.hashes.get(name)
    if expected:
        if digest != expected.lower():
            raise UserError(
                f'{path} is damaged or another file: its sha256 is {digest}, '
                f'expected {expected}.'
            )
        return f'{found}, as in the metafile'
    named = re.search(r'-([0-9a-f]{8})\.(pth|safetensors)$', name)
    if not named:
        return f'{found}, with nothing to compare it with'
    if digest.startswith(named[1]):
        return f'{found}, which begins as its name ends'
    if row and row.url.startswith(NAMED_BEFORE_PUBLISHING):
        return (
            f'{found}, not that of its name, which MMSegmentation gives '
            'before publishing'
        )
    raise UserError(
        f'the sha256 of {path} is {digest}, but its name ends in {named[1]}: '
        'it is damaged, another file, or was changed after it got its name.'
    )


def list_checkpoints(method: str = '', dataset: str = '') -> list[Row]:
    """List the published checkpoints.

    Args:
        method: What a word of the method's name begins with, in any case.
        dataset: The same of the dataset's name.

    Returns:
        In the order of ``model-index.yml``.

    Raises:
        UserError: There is none of that method and dataset.
    """
    known = read_rows()
    # "sanet" is no part of ISANet.
    methods, datasets = (
        re.compile(rf'\b{re.escape(text)}', re.IGNORECASE)
        for text in (method, dataset)
    )
    rows = [
        row
        for row in known
        if methods.search(row.method) and datasets.search(row.dataset)
    ]
    if not rows:
        raise UserError(
            f'no checkpoint is of a method with "{method}" on a dataset with '
            f'"{dataset}" in its name; there are '
            f'{", ".join(dict.fromkeys(row.method for row in known))} on '
            f'{", ".join(dict.fromkeys(row.dataset for row in known))}.'
        )
    return rows


def download_checkpoint(
    name: str, folder: str | Path = '.', retries: int = 4, timeout: float = 30
) -> Path:
    """Put a checked checkpoint and its config, in one piece, into a folder.

    Args:
        name: Its short name or that of its config, as
            :func:`list_checkpoints` has them.
        folder: The folder, made where it is not there.
        retries: Further tries after a broken connection.
        timeout: Seconds to wait for an answer.

    Returns:
        The checkpoint; its config lies beside it.

    Raises:
        UserError: There is no such model, or as of :func:`download`.
    """
    return download(find_row(name), Path(folder), retries, timeout)[0]


def verify_checkpoint(path: str | Path, config: str | None = None) -> str:
    """Check a file: its kind, its hash, and whether it fits its config.

    Args:
        path: The checkpoint.
        config: Path or name of its config, if the file's name does not tell.

    Returns:
        What was found, as a line.

    Raises:
        UserError: It is not good, or of no known config.
    """
    path = Path(path)
    row = next((row for row in read_rows() if path.name in row.hashes), None)
    if not (row or config):
        raise UserError(
            f'no checkpoint of the zoo has the name {path.name}: say with '
            '--config which config it is of.'
        )
    return check(path, row, config and Path(configs.find_config(config)))
