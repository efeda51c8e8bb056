# Copyright (c) mmseg_attn contributors.
"""Cut the fine GID pictures into patches with index masks, and split them.

SOURCE holds a folder of the pictures and another of the label pictures, whose
names begin with the pictures', in the 15 colours of the data set (black:
unlabelled)::

    SOURCE/image_RGB/NAME.tif    SOURCE/label_15classes/NAME_15label.tif

The result is ``OUT/images/{train,val,test}`` and ``OUT/annotations/...``
(0-14, 255 = unlabelled): patches that do not overlap, what remains at the
right and lower edge left out. The split of the Linear Attention report is
said to be 60, 20 and 20 per cent of the patches; its list is not known, and
neighbours of a test patch are then trained on. ``--by-picture`` splits whole
pictures instead. A run that was interrupted can be started again.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from mmseg_attn.errors import UserError, run_command
from mmseg_attn.files import whole
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.datasets.colours import colours_to_index
    from mmseg_attn.datasets.gid15 import GID15Dataset

SPLITS = ('train', 'val', 'test')
PALETTE = GID15Dataset.METAINFO['palette']
COLOURS = {(0, 0, 0): 255} | {tuple(c): i for i, c in enumerate(PALETTE)}
SUFFIXES = {'.tif', '.tiff', '.png', '.jpg'}
# They have some 50 million pixels; PIL warns of that many.
Image.MAX_IMAGE_PIXELS = 200_000_000


def find_pairs(images: Path, labels: Path) -> dict[str, tuple[Path, Path]]:
    """Find each picture's label picture, whose name begins with its own.

    Args:
        images: Folder of pictures.
        labels: Folder of label pictures.

    Returns:
        Name -> (picture, label picture).

    Raises:
        UserError: There is no picture, or not one label picture for each.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise UserError(f'there is no folder {folder}')
    pictures, masks = (
        sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        for folder in (images, labels)
    )
    names = [p.stem for p in pictures]
    # The longest name that a label picture's begins with: p10, not p1.
    owners = {
        mask: max(filter(mask.stem.startswith, names), key=len, default=None)
        for mask in masks
    }
    pairs = {}
    for picture in pictures:
        own = [m for m, name in owners.items() if name == picture.stem]
        own = [m for m in own if m.resolve() != picture.resolve()]
        if len(own) != 1:
            raise UserError(
                f'{picture}: expected one label picture in {labels} whose '
                f'name begins with {picture.stem}, found {len(own)}'
            )
        pairs[picture.stem] = picture, own[0]
    if not pairs:
        raise UserError(f'there is no picture (.tif, .png, .jpg) in {images}')
    return pairs


def patch_places(
    pairs: dict[str, tuple[Path, Path]], size: int
) -> Iterator[tuple[str, int, int]]:
    """List patches: name of the picture, row and column of the patch.

    Args:
        pairs: From :func:`find_pairs`.
        size: Side of a patch in pixels.

    Yields:
        In the order of names, rows and columns.

    Raises:
        UserError: A picture and its labels differ in size.
    """
    for name, (picture, labels) in pairs.items():
        with Image.open(picture) as a, Image.open(labels) as b:
            width, height = a.size
            if a.size != b.size:
                raise UserError(
                    f'{picture} has {a.size} pixels and {labels} {b.size}'
                )
        for row in range(height // size):
            for column in range(width // size):
                yield name, row, column


def split(
    patches: list[tuple[str, int, int]],
    shares: tuple[float, ...],
    seed: int,
    by_picture: bool,
) -> dict[tuple[str, int, int], str]:
    """Draw the split of each patch.

    Args:
        patches: From :func:`patch_places`.
        shares: Of train, val and test, together 1.
        seed: Of the drawing.
        by_picture: Whether all patches of a picture stay together.

    Returns:
        Patch -> split.
    """
    units = sorted({p[0] for p in patches} if by_picture else patches)
    random.Random(seed).shuffle(units)
    ends = np.cumsum(shares) * len(units)
    drawn = {}
    for i, unit in enumerate(units):
        place = int(np.searchsorted(np.round(ends), i, side='right'))
        drawn[unit] = SPLITS[min(place, 2)]
    return {p: drawn[p[0] if by_picture else p] for p in patches}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', type=Path)
    parser.add_argument('--images', default='image_RGB', help='in SOURCE')
    parser.add_argument(
        '--labels', default='label_15classes', help='in SOURCE'
    )
    parser.add_argument('--out', type=Path, default=Path('data/gid15'))
    parser.add_argument('--size', type=int, default=256)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--by-picture', action='store_true')
    args = parser.parse_args()
    if args.size < 1:
        raise UserError(f'got --size {args.size}, expected at least 1')
    pairs = find_pairs(args.source / args.images, args.source / args.labels)
    patches = list(patch_places(pairs, args.size))
    if not patches:
        raise UserError(
            f'no picture is as large as a patch of {args.size} pixels'
        )
    splits = split(patches, (0.6, 0.2, 0.2), args.seed, args.by_picture)
    # An earlier run with another seed or size would be mixed into this one.
    note = args.out / 'split.txt'
    text = ''.join(
        f'{splits[p]} {p[0]}_{p[1]}_{p[2]} {args.size}\n' for p in patches
    )
    if note.is_file() and note.read_text() != text:
        raise UserError(
            f'{args.out} holds another split or size of patches; give '
            'another --out'
        )
    args.out.mkdir(parents=True, exist_ok=True)
    with whole(note) as partial:
        partial.write_text(text)
    for name in track(pairs, 'pictures'):
        _cut(name, *pairs[name], patches, splits, args)
    counts = {s: sum(v == s for v in splits.values()) for s in SPLITS}
    print(f'{args.out}: ' + ', '.join(f'{n} {s}' for s, n in counts.items()))


def _cut(name, picture, labels, patches, splits, args) -> None:
    with Image.open(picture) as file:
        pixels = np.asarray(file.convert('RGB'))
    with Image.open(labels) as file:
        colours = np.asarray(file.convert('RGB'))
    size = args.size
    for patch in patches:
        if patch[0] != name:
            continue
        row, column = patch[1] * size, patch[2] * size
        place = slice(row, row + size), slice(column, column + size)
        for kind, source in (('images', pixels), ('annotations', colours)):
            folder = args.out / kind / splits[patch]
            path = folder / f'{name}_{patch[1]}_{patch[2]}.png'
            if path.exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            cut = source[place]
            if kind == 'annotations':
                try:
                    cut = colours_to_index(cut, COLOURS, 'GID')
                except UserError as error:
                    raise UserError(
                        f'{labels}, patch at row {row}, column {column}: '
                        f'{error}'
                    ) from error
            with whole(path) as partial:
                Image.fromarray(cut).save(partial, format='PNG')


if __name__ == '__main__':
    run_command(main)
