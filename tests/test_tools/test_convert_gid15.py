# Copyright (c) mmseg_attn contributors.
from collections import Counter

import numpy as np
import pytest
from in_process import run_script
from PIL import Image
from tiny_training import ROOT

from mmseg_attn.datasets import GID15Dataset

PALETTE = GID15Dataset.METAINFO['palette']


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
