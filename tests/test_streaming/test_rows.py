# Copyright (c) mmseg_attn contributors.
"""Rows of windows, against the host's way and brute force."""

import numpy as np
import pytest
import torch
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample

from mmseg_attn.apis.tasks import make_predictor
from mmseg_attn.apis.window_network import WindowNetwork
from mmseg_attn.errors import UserError
from mmseg_attn.png import write_rows
from mmseg_attn.streaming import (
    Picture,
    RowFile,
    Windows,
    overview,
    segment_rows,
)
from mmseg_attn.streaming.blending import Blend


def whole(rows):
    return np.concatenate(list(rows))


@torch.inference_mode()
def of_host(model, pixels):
    """Mask by the host's own slide_inference and postprocessing."""
    inputs = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    sample = SegDataSample(
        metainfo=dict(
            ori_shape=pixels.shape[:2],
            img_shape=pixels.shape[:2],
            img_path='',
        )
    )
    data = model.data_preprocessor(
        dict(inputs=[inputs], data_samples=[sample]), False
    )
    found = EncoderDecoder.predict(model, data['inputs'], data['data_samples'])
    return found[0].pred_sem_seg.data.numpy().squeeze()


@pytest.mark.parametrize('stride', [(21, 21), (32, 9), (12, 32)])
@pytest.mark.parametrize('size', [(72, 92), (70, 91), (20, 90), (33, 32)])
def test_the_mask_is_the_hosts(segmentor, pixels, size, stride, monkeypatch):
    """Also of pictures that are padded, or smaller than a window."""
    model = segmentor.model
    monkeypatch.setitem(model.test_cfg, 'stride', stride)
    image = pixels(*size)
    expected = of_host(model, image)
    assert len(np.unique(expected)) > 2
    network = WindowNetwork(make_predictor(model))
    for batch_size in (1, 3):
        found = whole(
            segment_rows(
                Picture(image),
                network,
                network.windows,
                batch_size=batch_size,
            )
        )
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


def test_one_logit_is_compared_with_the_threshold():
    image = np.arange(60, dtype=np.uint8).repeat(50 * 3).reshape(60, 50, 3)

    def network(windows):
        return windows[:, None, ..., 0].astype(np.float32) / 10 - 3

    rows = segment_rows(
        Picture(image), network, Windows((16, 16), (10, 10)), threshold=0.3
    )
    expected = 1 / (1 + np.exp(3 - image[..., 0] / 10)) > 0.3
    np.testing.assert_array_equal(whole(rows), expected)


def test_windows_count_by_their_centres():
    """Brute force in float64, window by window over the whole picture."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(4, 16, 16))  # one answer to each window

    def network(windows):
        shift = windows[:, :1, :1, 0, None].transpose(0, 3, 1, 2) / 50
        return (table + np.sin(shift * np.arange(4)[:, None, None])).astype(
            np.float32
        )

    image = rng.integers(0, 255, (45, 39, 3), dtype=np.uint8)
    tent = np.array([min(i + 0.5, 15.5 - i) / 8 for i in range(16)])
    sums = np.zeros((4, 45, 39))
    for top in (0, 12, 24, 29):
        for left in (0, 12, 23):
            cut = image[None, top : top + 16, left : left + 16]
            sums[:, top : top + 16, left : left + 16] += (
                network(cut)[0] * tent[:, None] * tent
            )
    rows = segment_rows(
        Picture(image), network, Windows((16, 16), (12, 12), 'centre')
    )
    np.testing.assert_array_equal(whole(rows), sums.argmax(0))
    with pytest.raises(UserError, match=r'--blend.* average or centre'):
        Windows((16, 16), (12, 12), 'middle')


def test_rows_go_on_from_each_band(segmentor, pixels, tmp_path, monkeypatch):
    """The sums are not kept: windows that reach below are seen again."""
    monkeypatch.setitem(segmentor.model.test_cfg, 'stride', (12, 12))
    image = pixels(90, 41)
    plain = WindowNetwork(make_predictor(segmentor.model))
    windows, seen = plain.windows, []

    def network(cuts):
        seen.append(len(cuts))
        return plain(cuts)

    def rows(**options):
        return segment_rows(Picture(image), network, windows, **options)

    bands = list(rows())
    expected, count = whole(bands), sum(seen)
    ends = np.cumsum([len(band) for band in bands]).tolist()
    for end in ends[:-1]:
        seen.clear()
        done = []
        rest = whole(rows(since=end, advance=done.append))
        np.testing.assert_array_equal(rest, expected[end:])
        assert sum(done) == count
    assert sum(seen) < count

    def opened(origin):
        return RowFile(tmp_path / '.rows', origin, 41, np.uint8, ends)

    file = opened(dict(size=1))
    for band in bands[:2]:
        file.append(band)
    with open(tmp_path / '.rows', 'ab') as half:
        half.write(b'killed within a row' * 9)
    again = opened(dict(size=1))
    assert again.rows == ends[1]
    for band in rows(since=again.rows):
        again.append(band)
    np.testing.assert_array_equal(whole(again.bands(7)), expected)
    assert opened(dict(size=2)).rows == 0  # of another picture


def test_memory_is_that_of_one_row_of_windows():
    """What is held does not depend on the height."""
    windows = Windows((16, 16), (10, 10))
    held, most = [], []

    class Counted(Picture):
        def read(self, top, bottom):
            most.append(bottom - top)
            return super().read(top, bottom)

    class Zeros:
        def __call__(self, cuts):
            return np.zeros((len(cuts), 9, 16, 16), np.float32)

    plain = Blend.finish

    def finish(self, *arguments):
        held.append(self.sums.nbytes)
        return plain(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blend, 'finish', finish)
        for height in (40, 400):
            image = np.zeros((height, 50, 3), np.uint8)
            for _ in segment_rows(Counted(image), Zeros(), windows):
                pass
    assert set(held) == {9 * 16 * 50 * 4}
    assert max(most) == 16 and sum(most) == 440  # each row is read once


def test_what_is_not_valid_is_not_predicted():
    image = np.zeros((40, 40, 3), np.uint8)
    valid = np.zeros((40, 40), bool)
    valid[5:9, 30:] = True
    seen = []

    class Masked(Picture):
        def read(self, top, bottom):
            return image[top:bottom], valid[top:bottom]

    def network(cuts):
        seen.append(len(cuts))
        return np.ones((len(cuts), 3, 16, 16), np.float32)

    rows = segment_rows(Masked(image), network, Windows((16, 16), (12, 12)))
    np.testing.assert_array_equal(whole(rows), np.where(valid, 0, 255))
    assert sum(seen) == 1


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_png_by_rows(tmp_path, dtype):
    from PIL import Image

    rng = np.random.default_rng(0)
    mask = rng.integers(0, np.iinfo(dtype).max, (50, 33)).astype(dtype)
    table = rng.integers(0, 255, (256, 3)) if dtype == np.uint8 else None
    bands = np.split(mask, [7, 8, 30])
    write_rows(tmp_path / 'a.png', bands, 50, 33, table)
    image = Image.open(tmp_path / 'a.png')
    np.testing.assert_array_equal(np.array(image), mask)
    if table is not None:
        assert image.getpalette() == table.ravel().tolist()


def test_overview_is_small_or_the_same(tmp_path, pixels):
    image = pixels(70, 95)
    labels = image[..., 0] // 64
    file = RowFile(tmp_path / '.rows', {}, 95, np.uint8, [70])
    file.append(labels)
    for seen, expected in zip(
        overview(Picture(image), file), (image, labels), strict=True
    ):
        np.testing.assert_array_equal(seen, expected)
    small, few = overview(Picture(image), file, most=32)
    mean = image[:69, :93].reshape(23, 3, 31, 3, 3).mean((1, 3))
    assert np.abs(small - mean).max() <= 1
    np.testing.assert_array_equal(few, labels[1:69:3, 1:93:3])
