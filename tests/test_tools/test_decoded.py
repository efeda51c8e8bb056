# Copyright (c) mmseg_attn contributors.
"""Data written anew without compression: the same to those who read it."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

TOOL = Path(__file__).parents[2] / 'tools/benchmark/decoded.py'


def test_the_copy_is_read_as_the_original(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (21, 30, 3), np.uint8)
    source, copy = tmp_path / 'data', tmp_path / 'copy'
    for folder in ('images/train', 'masks/train'):
        (source / folder).mkdir(parents=True)
    Image.fromarray(noise).save(source / 'images/train/a.jpg', quality=80)
    Image.fromarray(noise[..., 0]).save(source / 'masks/train/a.png')
    coloured = Image.fromarray(noise[..., 1] % 11)
    coloured.putpalette(range(33))
    coloured.save(source / 'masks/train/b.png')
    (source / 'list.txt').write_text('a')
    monkeypatch.setattr(sys, 'argv', ['decoded.py', str(source), str(copy)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TOOL), run_name='__main__')
    assert not ended.value.code
    names = {str(p.relative_to(copy)) for p in copy.rglob('*.*')}
    assert names == {
        'images/train/a.jpg',
        *map('masks/train/{}'.format, ('a.png', 'b.png')),
    }
    for name in names:
        one, two = source / name, copy / name
        assert two.read_bytes()[:2] == b'BM'
        # As the hosts read pictures, and below as they read masks.
        expected = cv2.imread(str(one))
        assert np.array_equal(cv2.imread(str(two)), expected)
        pixels = np.asarray(Image.open(one))
        assert np.array_equal(np.asarray(Image.open(two)), pixels)
