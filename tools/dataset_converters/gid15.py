# Copyright (c) mmseg_attn contributors.
"""Cut GID's pictures into patches with index masks, and split them.

SOURCE holds a folder of the pictures and another of the label pictures, whose
names begin with the pictures', in the 15 colours of the fine set, or with
``--classes 5`` in those of the large one (black: unlabelled)::

    SOURCE/image_RGB/NAME.tif    SOURCE/label_15classes/NAME_15label.tif
    SOURCE/image_RGB/NAME.tif    SOURCE/label_5classes/NAME_label.tif

The result is ``OUT/images/{train,val,test}`` and ``OUT/annotations/...``
(0-14, 255 = unlabelled): patches that do not overlap, what remains at the
right and lower edge left out. Pictures of other than three bands of 8 bits are
refused, unless ``--bands`` and ``--depth`` say what to make of them.

The split of the Linear Attention report is said to be 60, 20 and 20 per cent
of the patches; its list is not known, and neighbours of a test patch are then
trained on. ``--by-picture`` splits whole
pictures instead. A run that was interrupted can be started again.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from rich.progress import track

from mmseg_attn.errors import UserError, run_command
from mmseg_attn.files import whole
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.datasets.colours import colours_to_index
    from mmseg_attn.datasets.gid15 import GID5Dataset, GID15Dataset
    from mmseg_attn.pictures import check_depth, read_head, to_8_bits

SPLITS = ('train', 'val', 'test')
DATASETS = {5: GID5Dataset, 15: GID15Dataset}
SUFFIXES = {'.tif', '.tiff', '.png', '.jpg'}


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


def check_bands(
    picture: Path, bands: list[int] | None, depth: int | None
) -> None:
    """Refuse a picture that is not of red, green and blue in 8 bits.

    Args:
        picture: The file.
        bands: Which of its bands are these, from 1 on; None: there are three.
        depth: Bits that the values of a 16-bit picture use.

    Raises:
        UserError: It says what the picture has, and what to give.
    """
    head = read_head(str(picture))
    if head is None:
        raise UserError(f'{picture} cannot be read as a picture.')
    what = f'{picture} has {head.bands} bands of {head.bits} bits'
    if bands is None and head.bands != 3:
        raise UserError(
            f'{what}, expected 3 of 8. Say which of them, counted from 1, are '
            'red, green and blue: --bands 2 3 4 where near infrared comes '
            'first.'
        )
    if bands and max(bands) > head.bands:
        raise UserError(f'{what}: there is no band {max(bands)} (--bands).')
    if head.kind != 'unsigned' or head.bits not in (8, 16):
        raise UserError(f'{what}, {head.kind}, expected 8, or 16 unsigned.')
    if head.bits == 16 and depth is None:
        raise UserError(
            f'{what}, expected 8. Say how many of the bits are used: --depth '
            '10, as of Gaofen-2.'
        )


def read_bands(
    picture: Path, bands: list[int] | None, depth: int | None
) -> np.ndarray:
    """Read a picture that :func:`check_bands` lets pass.

    Args:
        picture: The file.
        bands: As of :func:`check_bands`.
        depth: As of :func:`check_bands`.

    Returns:
        (H, W, 3) uint8, red, green and blue.

    Raises:
        UserError: Its bands cannot be read as they are.
    """
    head = read_head(str(picture))
    values = None
    if head.bits == 8:
        with Image.open(picture) as file:
            values = np.asarray(file)  # CMYK, too, as it is stored
    if values is None or values.shape[2:] != (head.bands,):
        # Pillow cuts 16 bits, and drops a band that has no name.
        values = cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)
        if values is None or values.shape[2:] != (head.bands,):
            raise UserError(
                f'{picture} has {head.bands} bands of {head.bits} bits, which '
                'neither Pillow nor OpenCV reads as they are: save the three '
                'bands as a file of their own.'
            )
        values = values[..., [2, 1, 0, *range(3, head.bands)]]
    values = values[..., [band - 1 for band in bands or (1, 2, 3)]]
    if head.bits == 16:
        values = to_8_bits(values, str(picture), depth)
    return values


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
        '--labels', help='in SOURCE (default: label_15classes, or _5classes)'
    )
    parser.add_argument('--classes', type=int, choices=DATASETS, default=15)
    parser.add_argument(
        '--bands',
        nargs=3,
        type=int,
        metavar=('RED', 'GREEN', 'BLUE'),
        help='which bands of the pictures these are, counted from 1',
    )
    parser.add_argument(
        '--depth', type=int, help='bits that 16-bit pictures use, 9 to 16'
    )
    parser.add_argument(
        '--out', type=Path, help='default: data/gid15, or gid5'
    )
    parser.add_argument('--size', type=int, default=256)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--by-picture', action='store_true')
    args = parser.parse_args()
    if args.size < 1:
        raise UserError(f'got --size {args.size}, expected at least 1')
    if args.bands and min(args.bands) < 1:
        raise UserError(f'--bands are counted from 1, got {args.bands}.')
    check_depth(args.depth)
    args.labels = args.labels or f'label_{args.classes}classes'
    args.out = args.out or Path(f'data/gid{args.classes}')
    pairs = find_pairs(args.source / args.images, args.source / args.labels)
    for picture, _ in pairs.values():
        check_bands(picture, args.bands, args.depth)
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
    if args.classes != 15:
        text += f'{args.classes} classes\n'
    if args.bands or args.depth:
        text += f'bands {args.bands}, depth {args.depth}\n'
    if note.is_file() and note.read_text() != text:
        raise UserError(
            f'{args.out} holds another split, size, bands or classes; give '
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
    pixels = read_bands(picture, args.bands, args.depth)
    palette = DATASETS[args.classes].METAINFO['palette']
    table = {(0, 0, 0): 255} | {tuple(c): i for i, c in enumerate(palette)}
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
                    cut = colours_to_index(cut, table, 'GID')
                except UserError as error:
                    raise UserError(
                        f'{labels}, patch at row {row}, column {column}: '
                        f'{error}'
                    ) from error
            with whole(path) as partial:
                Image.fromarray(cut).save(partial, format='PNG')


if __name__ == '__main__':
    run_command(main)
