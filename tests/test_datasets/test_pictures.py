# Copyright (c) mmseg_attn contributors.
"""Pictures of every depth, turn and number of bands: right, or refused."""

import io
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image
from tiff import write_tiff

from mmseg_attn.datasets.pictures import LoadPicture
from mmseg_attn.engine.data_checks import use_own_loader
from mmseg_attn.errors import UserError
from mmseg_attn.pictures import picture_size, read_picture

# RGB, darker from left to right; red in the corner at the upper left.
PICTURE = np.repeat(np.arange(240, 80, -10, dtype=np.uint8)[None], 8, axis=0)
PICTURE = np.stack([PICTURE, PICTURE // 2, PICTURE // 3], axis=-1)
PICTURE[:2, :3] = (255, 0, 0)


def test_twelve_bits_are_scaled_where_asked(tmp_path):
    path = tmp_path / 'a.tif'
    write_tiff(path, PICTURE.astype(np.uint16) * 16)
    with pytest.raises(UserError, match=r'a\.tif has 16 bits .*--depth'):
        read_picture(str(path))
    found = read_picture(str(path), depth=12)[..., ::-1]
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - PICTURE).max() <= 1
    # It is as dark as that, the user says.
    assert (read_picture(str(path), depth=16) <= 16).all()
    with pytest.raises(UserError, match='value 4080, more than 10 bits'):
        read_picture(str(path), depth=10)
    with pytest.raises(UserError, match='depth .* is 8, expected'):
        read_picture(str(path), depth=8)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_sixteen_bits_are_the_upper_eight(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    cv2.imwrite(str(path), PICTURE[..., ::-1].astype(np.uint16) * 257)
    assert (read_picture(str(path))[..., ::-1] == PICTURE).all()


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (np.dstack([PICTURE, PICTURE[..., :2]]), '5 bands, expected 1, 3 or'),
        (PICTURE[..., :2], '2 bands, expected 1, 3 or 4'),
        (PICTURE.astype(np.int16) - 20, 'of signed 16-bit values'),
        (PICTURE.astype(np.int8), 'of signed 8-bit values'),
        (PICTURE.astype(np.float32), 'of 32-bit floating point values'),
        (PICTURE[..., 0].astype(np.float32), 'of 32-bit floating point'),
        (PICTURE[..., 0].astype(np.float64), 'of 64-bit floating point'),
        (PICTURE.astype(np.uint32), 'of 32-bit values'),
    ],
)
def test_what_has_no_colour_is_refused(tmp_path, values, message):
    path = tmp_path / 'a.tif'
    write_tiff(path, values)
    with pytest.raises(UserError, match=rf'a\.tif .*{message}.*tifffile'):
        read_picture(str(path))


def test_pages_of_a_stack_are_refused(tmp_path):
    path = tmp_path / 'a.tif'
    write_tiff(path, PICTURE, PICTURE)
    with pytest.raises(UserError, match=r'a\.tif has 2 pages'):
        read_picture(str(path))


@pytest.mark.parametrize('turn', range(1, 9))
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'TIFF', 'WEBP'])
def test_each_orientation_once_in_each_format(tmp_path, kind, turn):
    path = tmp_path / f'a.{kind.lower()}'
    exif = Image.Exif()
    exif[0x112] = turn
    options = {'lossless': True} if kind == 'WEBP' else {}
    Image.fromarray(PICTURE).save(path, kind, exif=exif, **options)
    found = read_picture(str(path))
    assert picture_size(str(path)) == found.shape[1::-1]
    turned = PICTURE
    if turn >= 5:
        turned = turned.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        turned = turned[::-1]
    if turn in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    assert found.shape == turned.shape
    off = np.abs(found[..., ::-1].astype(int) - turned)
    assert off.mean() < (25 if kind == 'JPEG' else 1e-9)


def png(width, height):
    """The head of a PNG file of one bit per pixel, and no pixels."""

    def chunk(name, data):
        check = zlib.crc32(name + data)
        return (
            struct.pack('>I', len(data))
            + name
            + data
            + check.to_bytes(4, 'big')
        )

    head = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', b'')


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize(
    ('size', 'message'),
    [
        ((40000, 30000), 'is 40000 x 30000 pixels, more than OpenCV reads'),
        ((2**21, 1), 'is 2097152 x 1 pixels, more than OpenCV reads'),
        ((60000, 60000), 'is too large: Image size .3600000000 pixels'),
    ],
)
def test_too_large_ones_are_no_damaged_ones(tmp_path, size, message):
    path = tmp_path / 'a.png'
    path.write_bytes(png(*size))
    with pytest.raises(UserError, match=rf'a\.png {message}'):
        read_picture(str(path))


def test_large_masks_are_read():
    """Of a satellite: Pillow alone would take them for an attack."""
    with Image.open(io.BytesIO(png(20000, 20000))) as image:
        assert image.size == (20000, 20000)


def test_the_loader_of_a_config_is_ours(tmp_path):
    init_default_scope('mmseg')
    inner = dict(type='LoadImageFromFile', to_float32=True)
    config = [dict(dataset=dict(pipeline=[inner, dict(type='Resize')]))]
    use_own_loader(config)
    assert inner['type'] == 'mmseg_attn.LoadPicture'
    path = tmp_path / 'a.tif'
    write_tiff(path, PICTURE.astype(np.uint16) * 16)
    load = LoadPicture(to_float32=True, depth=12)
    results = load(dict(img_path=str(path)))
    assert results['img'].dtype == np.float32
    assert results['img'].max() == 254
    assert results['ori_shape'] == PICTURE.shape[:2]
    assert 'depth=12' in repr(load)
    # What is loaded as it is stays so.
    bands = np.dstack([PICTURE, PICTURE[..., :2]])
    write_tiff(path, bands)
    pytest.importorskip('tifffile')
    load = LoadPicture(imdecode_backend='tifffile', color_type='unchanged')
    assert (load(dict(img_path=str(path)))['img'] == bands).all()
    path.write_bytes(b'II*\0')
    with pytest.raises(UserError, match=r'a\.tif cannot be read'):
        LoadPicture()(dict(img_path=str(path)))
    assert LoadPicture(ignore_empty=True)(dict(img_path=str(path))) is None


def test_pillow_is_not_asked_for_sixteen_bits(tmp_path):
    path = tmp_path / 'a.tif'
    write_tiff(path, PICTURE.astype(np.uint16))
    with pytest.raises(UserError, match=r"a\.tif has 16 bits .* with 'cv2'"):
        LoadPicture(imdecode_backend='pillow')(dict(img_path=str(path)))


@pytest.mark.parametrize('ending', ['png', 'jpg', 'bmp', 'webp'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_pillow_decodes_what_opencv_does(tmp_path, monkeypatch, ending, mode):
    path = tmp_path / f'a.{ending}'
    turn = Image.Exif()
    turn[0x0112] = 6
    turn = {'exif': turn} if ending == 'jpg' else {}
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (9, 9), 0)
    Image.fromarray(smooth).convert(mode).save(path, **turn)
    expected = read_picture(str(path))
    monkeypatch.setattr('mmseg_attn.pictures.opencv.cv2', None)
    found = read_picture(str(path))
    assert found.shape == expected.shape and found.flags.c_contiguous
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_pillow_reads_sixteen_grey_bits_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr('mmseg_attn.pictures.opencv.cv2', None)
    path = tmp_path / 'a.png'
    grey = PICTURE[..., 0].astype(np.uint16) * 256
    assert cv2.imwrite(str(path), grey)
    np.testing.assert_array_equal(
        read_picture(str(path)), PICTURE[..., :1].repeat(3, -1)
    )
    assert cv2.imwrite(str(path), PICTURE.astype(np.uint16) * 256)
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(UserError, match='needs cv2.* opencv-python-headless'):
        read_picture(str(path))
