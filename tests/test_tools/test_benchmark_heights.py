# Copyright (c) mmseg_attn contributors.
"""The pictures and the table of the memory by height."""

import sys
from argparse import Namespace
from pathlib import Path

import pytest

rasterio = pytest.importorskip('rasterio')
pytest.importorskip('mmseg')
# Its modules find each other beside the script.
sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools/benchmark'))
pytest.importorskip('report', reason='not in a checkout')


def test_pictures_and_lines(tmp_path):
    import heights

    heights.write_noise(tmp_path / 'a.tif', 700, 600)
    with rasterio.open(tmp_path / 'a.tif') as picture:
        values = picture.read()
    assert values.shape == (3, 700, 600)
    assert abs(values.reshape(-1, 100).mean(0) - 127.5).max() < 5
    args = Namespace(width=10000, window=512)
    found = dict(height=10000, peak_bytes=3 << 20, seconds=4.4)
    line = ['10,000 x 10,000', '841', '3 MiB', '4 s']
    assert heights.line(found, args) == line
