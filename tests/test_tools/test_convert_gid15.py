# Copyright (c) mmseg_attn contributors.
from collections import Counter

import numpy as np
import pytest
from in_process import run_script
from PIL import Image
from tiff import write_tiff
from tiny_training import ROOT

from mmseg_attn.datasets import GID5Dataset, GID15Dataset

PALETTE = GID15Dataset.METAINFO['palette']
# Written down here once more.
FINE = """
industrial land 200 0 0|urban residential 250 0 150|
rural residential 200 150 150|traffic land 250 150 150|paddy field 0 200 0|
irrigated land 150 250 0|dry cropland 150 200 150|garden plot 200 0 200|
arbor woodland 150 0 250|shrub land 150 150 250|natural grassland 250 200 0|
artificial grassland 200 200 0|river 0 0 200|lake 0 150 200|pond 0 200 250
"""
LARGE = """
built-up 255 0 0|farmland 0 255 0|forest 0 255 255|meadow 255 255 0|
water 0 0 255
"""


@pytest.mark.parametrize(
    ('dataset', 'text'), [(GID15Dataset, FINE), (GID5Dataset, LARGE)]
)
def test_classes_and_colours(dataset, text):
    rows = [row.split() for row in text.split('|')]
    named = {' '.join(row[:-3]): [*map(int, row[-3:])] for row in rows}
    meta = dataset.METAINFO
    assert tuple(named) == meta['classes']
    assert list(named.values()) == meta['palette']


def write_source(folder, pictures=2, size=(70, 45)):
    """Pictures of 4 x 2 patches of 16 pixels, with something left over."""
    generator = np.random.default_rng(0)
    labels = {}
    for kind in ('image_RGB', 'label_15classes'):
        (folder / kind).mkdir(parents=True)
    table = np.array([*PALETTE, (0, 0, 0)], np.uint8)
    for i in range(pictures):
        width, height = size
        index = generator.integers(0, 16, (height, width))
        pixels = generator.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'image_RGB/p{i}.tif')
        coloured = Image.fromarray(table[index])
        coloured.save(folder / f'label_15classes/p{i}_15label.tif')
        labels[f'p{i}'] = np.where(index == 15, 255, index), pixels
    return labels


def convert(source, out, *arguments):
    tool = ROOT / 'tools' / 'dataset_converters' / 'gid15.py'
    return run_script(tool, source, '--out', out, '--size', 16, *arguments)


def read(out, kind='annotations'):
    return {
        path.stem: (path.parent.name, np.asarray(Image.open(path)))
        for path in out.glob(f'{kind}/*/*.png')
    }


def test_patches_are_cuts_of_the_pictures(tmp_path):
    labels = write_source(tmp_path / 'source')
    done = convert(tmp_path / 'source', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    masks, pictures = read(tmp_path / 'out'), read(tmp_path / 'out', 'images')
    assert len(masks) == len(pictures) == 2 * 4 * 2
    for name, (split, mask) in masks.items():
        picture, row, column = name.split('_')
        row, column = 16 * int(row), 16 * int(column)
        place = slice(row, row + 16), slice(column, column + 16)
        assert np.array_equal(mask, labels[picture][0][place])
        assert np.array_equal(pictures[name][1], labels[picture][1][place])
        assert pictures[name][0] == split
    counts = Counter(split for split, _ in masks.values())
    assert counts == {'train': 10, 'val': 3, 'test': 3}
    dataset = GID15Dataset(
        data_root=str(tmp_path / 'out'),
        data_prefix=dict(
            img_path='images/train', seg_map_path='annotations/train'
        ),
    )
    assert len(dataset) == 10


def of_bands(folder, kind, save):
    """The pictures of :func:`write_source` in another form."""
    values = {}
    for number in range(2):
        path = folder / f'image_RGB/p{number}.tif'
        rng = np.random.default_rng(number)
        most = 1023 if kind == '16 bits' else 255
        picture = rng.integers(0, most + 1, (45, 70, 4))
        picture = picture.astype(np.uint16 if most > 255 else np.uint8)
        path.unlink()
        save(path, picture)
        values[f'p{number}'] = picture
    return values


@pytest.mark.parametrize(
    ('kind', 'save', 'options', 'message'),
    [
        ('4 bands', write_tiff, (), 'has 4 bands of 8 bits, expected 3 of 8'),
        (
            'CMYK',
            lambda path, x: Image.fromarray(x, 'CMYK').save(path),
            (),
            'has 4 bands of 8 bits, expected 3 of 8',
        ),
        (
            '16 bits',
            write_tiff,
            ('--depth', 10),
            'has 4 bands of 16 bits, expected 8. Say how many',
        ),
    ],
)
def test_other_bands_and_bits(tmp_path, kind, save, options, message):
    """Refused by name, or taken as asked: here NIR, red, green, blue."""
    source = tmp_path / 'source'
    write_source(source)
    values = of_bands(source, kind, save)
    done = convert(source, tmp_path / 'out')
    assert done.returncode and 'p0.tif has 4 bands' in done.stderr
    done = convert(source, tmp_path / 'out', '--bands', 2, 3, 4)
    assert done.returncode == 0 if not options else message in done.stderr
    assert message in convert(source, tmp_path / 'other').stderr or options
    done = convert(source, tmp_path / 'out', '--bands', 2, 3, 4, *options)
    assert done.returncode == 0, done.stderr
    pictures = read(tmp_path / 'out', 'images')
    assert len(pictures) == 2 * 4 * 2
    for name, (_, found) in pictures.items():
        picture, row, column = name.split('_')
        row, column = 16 * int(row), 16 * int(column)
        cut = values[picture][row : row + 16, column : column + 16, 1:]
        if kind == '16 bits':
            cut = np.rint(cut.astype(np.float64) * 255 / 1023)
        assert np.array_equal(found, cut), name
    done = convert(source, tmp_path / 'out', '--bands', 4, 3, 2, *options)
    assert 'another split, size, bands' in done.stderr
    done = convert(source, tmp_path / 'more', '--bands', 3, 4, 5, *options)
    assert 'there is no band 5' in done.stderr


def test_five_classes(tmp_path):
    labels = write_source(tmp_path / 'source')
    folder = tmp_path / 'source/label_15classes'
    table = np.array([*GID5Dataset.METAINFO['palette'], (0, 0, 0)], np.uint8)
    for name, (index, _) in labels.items():
        fine = table[np.minimum(index, 5)]
        path = folder / f'{name}_15label.tif'
        path.unlink()
        Image.fromarray(fine).save(folder / f'{name}_label.tif')
    folder.rename(tmp_path / 'source/label_5classes')
    done = convert(tmp_path / 'source', tmp_path / 'out', '--classes', 5)
    assert done.returncode == 0, done.stderr
    for name, (_, mask) in read(tmp_path / 'out').items():
        picture, row, column = name.split('_')
        row, column = 16 * int(row), 16 * int(column)
        index = labels[picture][0][row : row + 16, column : column + 16]
        assert np.array_equal(mask, np.where(index < 5, index, 255))


def test_seed_and_whole_pictures(tmp_path):
    write_source(tmp_path / 'source', pictures=5, size=(33, 16))
    splits = []
    for i, arguments in enumerate(((), ('--seed', '1'), ('--by-picture',))):
        done = convert(tmp_path / 'source', tmp_path / f'{i}', *arguments)
        assert done.returncode == 0, done.stderr
        masks = read(tmp_path / f'{i}')
        splits.append({name: split for name, (split, _) in masks.items()})
    assert splits[0] != splits[1]
    for picture in range(5):
        own = {s for n, s in splits[2].items() if n.startswith(f'p{picture}')}
        assert len(own) == 1
    assert Counter(splits[2].values()) == {'train': 6, 'val': 2, 'test': 2}
    # Another split is not mixed into a folder, the same one is completed.
    again = convert(tmp_path / 'source', tmp_path / '0', '--seed', '1')
    assert again.returncode and 'another split' in again.stderr
    next((tmp_path / '0').glob('annotations/*/*.png')).unlink()
    assert convert(tmp_path / 'source', tmp_path / '0').returncode == 0
    assert len(read(tmp_path / '0')) == 10


def test_names_that_begin_alike(tmp_path):
    labels = write_source(tmp_path / 'source', pictures=11, size=(16, 16))
    done = convert(tmp_path / 'source', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    masks = read(tmp_path / 'out')
    for name in ('p1', 'p10'):
        assert np.array_equal(masks[f'{name}_0_0'][1], labels[name][0])


@pytest.mark.parametrize(
    'damage, message',
    [
        ('colour', 'colour (1, 2, 3)'),
        ('size', 'has (70, 45) pixels'),
        ('missing', 'found 0'),
        ('folder', 'there is no folder'),
    ],
)
def test_bad_sources_are_named(tmp_path, damage, message):
    source = tmp_path / 'source'
    write_source(source, 1)
    label = source / 'label_15classes' / 'p0_15label.tif'
    if damage == 'missing':
        label.unlink()
    elif damage == 'folder':
        label.unlink()
        label.parent.rmdir()
    else:
        pixels = np.array(Image.open(label))
        if damage == 'colour':
            pixels[20, 20] = (1, 2, 3)
        else:
            pixels = pixels[:-1]
        Image.fromarray(pixels).save(label)
    done = convert(source, tmp_path / 'out')
    assert done.returncode and message in done.stderr
    assert 'Traceback' not in done.stderr
    assert damage == 'folder' or 'p0' in done.stderr
