# Copyright (c) mmseg_attn contributors.
"""Read the package's metafiles: what methods and trained models there are.

mim reads the same files. Those of the methods lie beside their configs, that
of the models that were trained here beside their weights.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from urllib.parse import urlsplit

from .errors import UserError, near

# Where the weights lie that come with the package.
ZOO = 'resources/zoo'


@dataclass(frozen=True)
class Row:
    """A trained model, as its metafile describes it.

    Attributes:
        name: Name of its config, without suffix.
        short: What it is called besides; of models trained here alone.
        config: The config.
        method: The collection it is in.
        dataset: What it was tested on.
        backbone: Such as ``R-50-D8``.
        miou: In per cent, as its publisher says.
        url: Where the checkpoint is: an address, or a path in the project.
        packaged: The checkpoint, if it came with the package.
        hashes: Names of its files, and the sha256 of each that is known.
        command: What trained it; of models trained here alone.
        seeds: Seeds that it was trained with here, that of the checkpoint
            first, and the mIoU of each.
    """

    name: str
    short: str | None
    config: Path
    method: str
    dataset: str
    backbone: str
    miou: float | None
    url: str
    packaged: Path | None
    hashes: dict[str, str | None]
    command: str | None
    seeds: dict[int, float]

    @property
    def title(self) -> str:
        """The shortest name that finds it."""
        return self.short or self.name

    @property
    def file(self) -> str:
        """Name of the checkpoint's file."""
        return _file_of(self.url)

    @property
    def mean(self) -> float:
        """Mean mIoU of the seeds, in per cent."""
        return fmean(self.seeds.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation (n - 1) of the seeds' mIoU; None of one seed."""
        several = len(self.seeds) > 1
        return stdev(self.seeds.values()) if several else None


def package_roots() -> list[Path]:
    """Find the folders that hold the package's ``configs`` and model index.

    Returns:
        One, in an installed wheel and in a checkout.
    """
    package = Path(__file__).resolve().parent
    roots = [package / '.mim']  # in an installed wheel
    if (package.parent / 'pyproject.toml').is_file():  # in a checkout
        roots.append(package.parent)
    return [root for root in roots if (root / 'model-index.yml').is_file()]


@functools.cache
def method_titles() -> dict[str, str]:
    """Read what the methods are called from their metafiles.

    Returns:
        Folder in ``configs`` -> title, in the order of ``model-index.yml``.
    """
    titles = {}
    for root, path, content in _metafiles():
        if path.parent.parent == root / 'configs':
            (collection,) = content['Collections']
            titles[path.parent.name] = collection['Name']
    return titles


def read_rows() -> list[Row]:
    """Read the rows of all metafiles of the package.

    Returns:
        In the order of ``model-index.yml``.
    """
    return [
        _row(root, model)
        for root, _, content in _metafiles()
        for model in content['Models']
    ]


def short_names() -> dict[str, Row]:
    """The rows that have a short name, by it."""
    return {row.short: row for row in read_rows() if row.short}


def find_row(name: str | Path) -> Row:
    """Find a row.

    Args:
        name: Its short name, or that of its config, with or without folders
            and ``.py``.

    Returns:
        The row.

    Raises:
        UserError: There is none.
    """
    rows = read_rows()
    stem = Path(name).name.removesuffix('.py')
    for row in rows:
        if stem in (row.short, row.name):
            return row
    names = [name for row in rows for name in (row.short, row.name) if name]
    raise UserError(
        f'there is no checkpoint of {stem} among the {len(rows)} of '
        f'"python -m mmseg_attn zoo list".{near(stem, names)}'
    )


def is_row(name: str) -> bool:
    """Whether a name is one of the zoo, and no file of the user's."""
    if Path(name).is_file():
        return False
    try:
        return bool(find_row(name))
    except UserError:
        return False


def _metafiles() -> Iterator[tuple[Path, Path, dict]]:
    """Root, place and content of each, in the order of the index."""
    import yaml  # the hosts bring it; other commands need none

    for root in package_roots():
        index = yaml.safe_load((root / 'model-index.yml').read_text('utf-8'))
        for name in index['Import']:
            path = root / name
            yield root, path, yaml.safe_load(path.read_text('utf-8'))


def _row(root: Path, model: dict) -> Row:
    results = model['Results']
    results = results[0] if isinstance(results, list) else results
    url = model['Weights']
    packaged = root / ZOO / _file_of(url)
    hashes = {_file_of(url): model.get('SHA256')}
    if 'Safetensors' in model:
        other = _file_of(model['Safetensors'])
        hashes[other] = model['Safetensors SHA256']
    return Row(
        name=model['Name'],
        short=model.get('Short Name'),
        config=root / model['Config'],
        method=model['In Collection'],
        dataset=results['Dataset'],
        backbone=model['Metadata']['Architecture'][0],
        miou=results['Metrics'].get('mIoU'),
        url=url,
        packaged=packaged if packaged.is_file() else None,
        hashes=hashes,
        command=model.get('Command'),
        seeds=model.get('Seeds', {}),
    )


def _file_of(url: str) -> str:
    return urlsplit(url).path.split('/')[-1]
