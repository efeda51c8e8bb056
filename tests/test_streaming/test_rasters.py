# Copyright (c) mmseg_attn contributors.
"""TIFF files by bands of rows, and predict with windows that stream."""

import json
import sys
import warnings
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image
from tiff import write_tiff

from mmseg_attn.__main__ import main
from mmseg_attn.errors import UserError
from mmseg_attn.inference import streamed
from mmseg_attn.pictures import read_picture
from mmseg_attn.png import write_png
from mmseg_attn.streaming import RowFile, open_picture, pictures

rasterio = pytest.importorskip('rasterio')
NotGeoreferencedWarning = rasterio.errors.NotGeoreferencedWarning
PLACE = dict(
    crs='EPSG:32632',
    transform=rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5400000),
)


@pytest.fixture
def raster(tmp_path):
    """Writes (H, W, bands) values as a TIFF file."""

    def write(values, name='a.tif', **options):
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        path = tmp_path / 'in' / name
        path.parent.mkdir(exist_ok=True)
        height, width, count = values.shape
        options = dict(count=count, dtype=values.dtype) | options
        with rasterio.open(
            path, 'w', driver='GTiff', height=height, width=width, **options
        ) as file:
            file.write(values.transpose(2, 0, 1))
        return path

    return write


def read_all(path, *arguments, rows=13):
    """Pixels and what is valid, read in bands."""
    with open_picture(path, *arguments) as picture:
        ends = [*range(0, picture.height, rows), picture.height]
        parts = [picture.read(*e) for e in zip(ends, ends[1:], strict=False)]
    valid = [part for _, part in parts]
    valid = None if valid[0] is None else np.concatenate(valid)
    return np.concatenate([part for part, _ in parts]), valid


@pytest.mark.parametrize(
    'layout',
    [
        dict(tiled=True, blockxsize=16, blockysize=16, compress='deflate'),
        dict(blockysize=7, compress='lzw'),
        dict(interleave='band'),
    ],
)
def test_layouts(raster, pixels, layout):
    values = pixels(70, 90)
    found, valid = read_all(raster(values, **layout))
    np.testing.assert_array_equal(found, values[..., ::-1])
    assert valid is None


def test_bands(raster, pixels):
    values = pixels(30, 40, 6)
    path = raster(values)
    found, _ = read_all(path, [5, 3, 2])
    np.testing.assert_array_equal(found, values[..., [1, 2, 4]])
    found, _ = read_all(path, [4])
    np.testing.assert_array_equal(found, values[..., [3] * 3])
    for bands in ([0, 1, 2], [1, 2], [1, 2, 7]):
        with pytest.raises(UserError, match='--bands .* from 1 to 6: '):
            open_picture(path, bands)
    with pytest.raises(UserError, match='has 6 bands: say which'):
        open_picture(path)
    png = path.with_suffix('.png')
    write_png(png, values[..., :3])
    with pytest.raises(UserError, match='--bands is for TIFF files'):
        open_picture(png, [1, 2, 3])


def test_a_colour_table_is_looked_up(raster):
    values = np.arange(20 * 30).reshape(20, 30, 1).astype(np.uint8) % 7
    table = {i: (30 * i, 200 - i, i * i, 255) for i in range(7)}
    path = raster(values, photometric='palette')
    with rasterio.open(path, 'r+') as file:
        file.write_colormap(1, table)
    colours = np.array([table[i][2::-1] for i in range(7)])
    found, _ = read_all(path)
    np.testing.assert_array_equal(found, colours[values[..., 0]])


@pytest.mark.parametrize('depth', [None, 12])
def test_16_bits_are_scaled_as_one_picture(raster, pixels, depth):
    """Not each band of rows by its own largest value."""
    values = pixels(70, 90, dtype=np.uint16) >> (16 - (depth or 16))
    values[:20] //= 16
    path = raster(values)
    found, _ = read_all(path, None, depth)
    np.testing.assert_array_equal(found, read_picture(str(path), depth))
    # What is nodata takes no part.
    values[3, 4] = 65535
    found, valid = read_all(raster(values, nodata=65535), None, depth)
    assert not valid[3, 4] and valid.sum() == 70 * 90 - 1


@pytest.mark.parametrize('meaning', ['MINISBLACK', 'MINISWHITE'])
@pytest.mark.parametrize('bits', [2, 4, 8, 12, 16])
def test_black_is_black_and_white_is_white(raster, pixels, bits, meaning):
    """However many bits, and whichever of the two is 0."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    size = 8 * np.dtype(dtype).itemsize
    values = pixels(30, 40, 1, dtype) >> (size - bits)
    options = dict(nbits=bits) if bits < size else {}
    path = raster(values, photometric=meaning, **options)
    grey = values[..., 0] / (2.0**bits - 1)
    grey = 1 - grey if meaning == 'MINISWHITE' else grey
    found, _ = read_all(path)
    assert np.abs(found[..., 0] - 255 * grey).max() < 1
    np.testing.assert_array_equal(found, read_picture(str(path)))
    if bits == 12:  # said twice
        again, _ = read_all(path, None, 12)
        np.testing.assert_array_equal(found, again)


def test_values_that_are_refused(raster, pixels):
    dark = pixels(30, 30, dtype=np.uint16) >> 6
    with pytest.raises(UserError, match='read as 16 bits it would be nearly'):
        read_all(raster(dark))
    with pytest.raises(UserError, match='more than 9 bits'):
        read_all(raster(dark), None, 9)
    with pytest.raises(UserError, match='32-bit floating point'):
        open_picture(raster(np.float32(dark)))


def test_alpha_and_masks_are_what_is_not_valid(raster, pixels):
    values = pixels(30, 40, 4)
    values[..., 3] = 255
    values[:9, :8, 3] = 0
    found, valid = read_all(raster(values, photometric='RGB', alpha='yes'))
    np.testing.assert_array_equal(found, values[..., 2::-1])
    np.testing.assert_array_equal(valid, values[..., 3] > 0)


def test_large_png_files_are_read_by_bands(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(pictures, 'LARGE', 1000)
    for channels in (1, 3, 4):  # with alpha as a whole
        path = tmp_path / f'{channels}.png'
        cv2.imwrite(str(path), pixels(70, 90, channels))
        with open_picture(path) as picture:
            assert (type(picture).__name__ == 'Raster') == (channels < 4)
        found, valid = read_all(path)
        np.testing.assert_array_equal(found, read_picture(str(path)))
        assert valid is None


def test_what_turns_or_has_passes_is_read_whole(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(pictures, 'LARGE', 1000)
    image = Image.fromarray(pixels(70, 90))
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / 'a.jpg', exif=exif)
    image.convert('P').save(tmp_path / 'b.png')
    write_tiff(tmp_path / 'c.tif', pixels(70, 90), turn=6)
    for name in ('a.jpg', 'b.png', 'c.tif'):
        found = read_all(tmp_path / name)[0]
        expected = read_picture(str(tmp_path / name))
        np.testing.assert_array_equal(found, expected)


@pytest.fixture
def predict(segmentor, tmp_path):
    """Run the command on inputs, into tmp_path/out; returns its code."""

    def run(*words, slide=('--slide', '32')):
        words = [*words, '--out', tmp_path / 'out', '--device', 'cpu', *slide]
        files = segmentor.config, segmentor.checkpoint
        return main(['predict', *files, *map(str, words)])

    return run


def test_geotiff_in_geotiff_out(predict, raster, pixels, segmentor, tmp_path):
    values = pixels(70, 90)
    values[:40, 50:] = 0
    path = raster(values, nodata=0, **PLACE)
    assert predict(path) == 0
    with rasterio.open(tmp_path / 'out/geotiff/a.tif') as file:
        labels = file.read(1)
        assert file.crs.to_epsg() == 32632
        assert file.transform == PLACE['transform']
        assert file.nodata == 255
        structure = file.tags(ns='IMAGE_STRUCTURE')
        assert structure['LAYOUT'] == 'COG'
        assert structure['COMPRESSION'] == 'DEFLATE'
        assert file.colormap(1)[3] == (120, 0, 99, 255)
        names = [f'kind {i}' for i in range(5)]
        assert json.loads(file.tags()['classes']) == names
        assert file.tags(1)['CLASS_4'] == 'kind 4'
    # GDAL's own names, which rasterio does not give: a VRT repeats them.
    file = tmp_path / 'out/geotiff/a.tif'
    rasterio.shutil.copy(file, tmp_path / 'a.vrt', driver='VRT')
    described = ElementTree.parse(tmp_path / 'a.vrt')
    assert [item.text for item in described.iter('Category')] == names
    empty = (values == 0).all(-1)
    assert empty.sum() >= 1600
    np.testing.assert_array_equal(labels == 255, empty)
    # As the host does it with the whole picture in memory.
    plain = predict_whole(segmentor, values[..., ::-1])
    np.testing.assert_array_equal(labels[~empty], plain[~empty])
    left = {file.name for file in (tmp_path / 'out/geotiff').iterdir()}
    assert left == {'a.tif', 'a.tif.aux.xml'}  # no rows, no tiles
    shown = cv2.imread(str(tmp_path / 'out/overlay/a.jpg'))
    assert shown.shape[0] == 70 and shown[:38, 52:88].max() < 20


def predict_whole(segmentor, image):
    from mmseg_attn.apis.tasks import make_predictor

    predictor = make_predictor(segmentor.model)
    return predictor([predictor.prepare(np.ascontiguousarray(image))])[0]


def test_mask_areas_and_polygons_by_name(predict, raster, pixels, tmp_path):
    values = pixels(70, 90)
    values[:20, :30] = 0
    path = raster(values, nodata=0, **PLACE)
    kinds = 'mask', 'areas', 'coco', 'labelme', 'geotiff'
    assert predict(path, '--save', *kinds) == 0
    mask = np.array(Image.open(tmp_path / 'out/mask/a.png'))
    with rasterio.open(tmp_path / 'out/geotiff/a.tif') as file:
        np.testing.assert_array_equal(file.read(1), mask)
    areas = json.loads((tmp_path / 'out/areas/a.json').read_text())
    assert areas['nodata'] == (mask == 255).sum() >= 600
    assert sum(item['share'] for item in areas['classes']) == pytest.approx(1)
    for item in areas['classes']:
        pixels_there = int((mask == int(item['name'][-1])).sum())
        assert item['pixels'] == pixels_there
        assert item['square_metres'] == pixels_there / 4
    found = json.loads((tmp_path / 'out/coco/a.json').read_text())
    total = sum(item['area'] for item in found['annotations'])
    assert total == (mask != 255).sum()


def test_a_killed_run_goes_on(predict, raster, pixels, tmp_path, monkeypatch):
    path = raster(pixels(90, 41), **PLACE)
    assert predict(path, '--save', 'geotiff', 'mask', 'overlay') == 0
    files = [
        tmp_path / 'out' / name
        for name in ('geotiff/a.tif', 'mask/a.png', 'overlay/a.jpg')
    ]
    expected = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    plain, rows = RowFile.append, []

    class Killed(BaseException):
        pass

    def append(self, labels):
        if rows:
            raise Killed
        rows.append(len(labels))
        plain(self, labels)

    options = '--save', 'geotiff', 'mask', 'overlay'
    monkeypatch.setattr(RowFile, 'append', append)
    with pytest.raises(Killed):
        predict(path, *options)
    assert not any(file.exists() for file in files)
    started = []

    def segment(*arguments, since, **others):
        started.append(since)
        return streamed_rows(*arguments, since=since, **others)

    streamed_rows = streamed.segment_rows
    monkeypatch.setattr(RowFile, 'append', plain)
    monkeypatch.setattr(streamed, 'segment_rows', segment)
    with pytest.raises(SystemExit, match=r'other settings \(slide\)'):
        predict(path, *options, slide=('--slide', '48'))
    assert predict(path, '--save', 'mask') == 0  # which it begins with
    assert started == rows
    assert files[1].read_bytes() == expected[1]
    assert not list((tmp_path / 'out').rglob('*.rows'))
    assert predict(path, *options) == 0
    assert [file.read_bytes() for file in files] == expected


def test_broken_files_are_told_in_one_line(
    predict, raster, pixels, capsys, tmp_path
):
    path = raster(pixels(70, 90), tiled=True, blockxsize=16, blockysize=16)
    path.write_bytes(path.read_bytes()[:9000])
    raster(pixels(40, 40), 'b.tif', **PLACE)
    assert predict(tmp_path / 'in') == 1
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if 'damaged or cut off' in line]
    assert len(told) == 1 and 'a.tif' in told[0]
    assert (tmp_path / 'out/geotiff/b.tif').exists()


def test_what_does_not_stream_says_so(
    predict, raster, pixels, capsys, monkeypatch
):
    path = raster(pixels(40, 50))

    def told(*words, slide):
        try:
            assert predict(path, *words, '--overwrite', slide=slide) == 1
        except SystemExit as error:
            return str(error)
        return capsys.readouterr().err

    said = told('--save', 'geotiff', slide=[])
    assert '--save geotiff is for' in said and 'add --slide' in said
    said = told('--bands', '3,2,1', slide=[])
    assert '--bands is for' in said and 'it is predicted whole' in said
    said = told('--blend', 'centre', '--tta', slide=['--slide'])
    assert '--blend is for' in said and '--tta' in said
    with monkeypatch.context() as without:
        without.setitem(sys.modules, 'rasterio', None)
        for words in (['--save', 'geotiff'], ['--bands', '3,2,1']):
            said = told(*words, slide=['--slide'])
            assert f'{words[0]}' in said and 'mmseg_attn[geo]' in said
        assert predict(path, '--overwrite') == 0  # OpenCV reads it whole
    monkeypatch.setattr(streamed, '_memory', lambda: 1000)
    assert 'add --slide' in told(slide=[])
    assert 'scores of all classes' in told(
        '--save', 'scores', slide=['--slide']
    )
    assert predict(path, '--overwrite') == 0


def test_resizing_pipelines(pixels, segmentor):
    """A picture that is resized does not stream."""
    from mmcv.transforms import Resize

    from mmseg_attn.apis.tasks import make_predictor
    from mmseg_attn.apis.window_network import WindowNetwork

    predictor = make_predictor(segmentor.model)
    resized = WindowNetwork(predictor).resized
    for step, size in (
        (dict(scale=(128, 64), keep_ratio=True), '91 x 64'),
        (dict(scale=(128, 64)), '128 x 64'),
        (dict(scale_factor=0.5, keep_ratio=True), '50 x 35'),
        (dict(scale_factor=1.0, keep_ratio=True), None),
        (dict(scale=(70, 100), keep_ratio=True), None),
    ):
        predictor.steps.transforms.insert(0, Resize(**step))
        assert resized(70, 100) == size
        if size:
            shape = predictor.prepare(pixels(70, 100)).data['inputs'].shape
            assert f'{shape[2]} x {shape[1]}' == size
        predictor.keep_size()
        assert resized(70, 100) is None
