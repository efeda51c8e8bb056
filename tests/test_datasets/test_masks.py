# Copyright (c) mmseg_attn contributors.
"""Masks that would be read as something else, file by file and together."""

import cv2
import numpy as np
import pytest
from PIL import Image
from tiff import write_tiff

from mmseg_attn.datasets.check_annotations import CheckAnnotations
from mmseg_attn.datasets.label_survey import LabelSurvey
from mmseg_attn.datasets.masks import check_mask, read_mask
from mmseg_attn.errors import UserError

MASK = np.zeros((6, 8), np.uint8)
MASK[:3, :4] = 1
MASK[4:] = 2


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (
            np.where(MASK == 2, -1, MASK.astype(int)).astype(np.int16),
            '16 bits .* value -1',
        ),
        (
            np.where(MASK == 2, -1, MASK.astype(int)).astype(np.int8),
            '8 bits .* value -1',
        ),
        (
            np.where(MASK == 2, -9999, MASK.astype(int)).astype(np.float32),
            'value -9999',
        ),
        (
            np.where(MASK == 2, np.nan, MASK.astype(int)).astype(np.float32),
            'value nan',
        ),
        (MASK.astype(np.float32) / 2, '32 bits .* the value 0.5'),
        (MASK.astype(np.float64), '1 bands of 64-bit float values'),
        (MASK.astype(np.uint16) + 255, '16 bits .* the value 25[67]'),
    ],
)
def test_values_that_would_be_cut_are_refused(tmp_path, values, message):
    path = tmp_path / 'a.tif'
    write_tiff(path, values)
    for read in (check_mask, read_mask):
        with pytest.raises(UserError, match=rf'mask .*a\.tif .*{message}'):
            read(path)


@pytest.mark.parametrize('kind', ['u1', 'i1', 'u2', 'i2', 'i4', 'f4'])
def test_values_of_any_kind_that_fit_are_taken(tmp_path, kind):
    path = tmp_path / 'a.tif'
    write_tiff(path, MASK.astype(kind))
    check_mask(path)
    assert (read_mask(path)[0] == MASK).all()


def test_pages_and_turned_masks_are_refused(tmp_path):
    path = tmp_path / 'a.tif'
    write_tiff(path, MASK, MASK)
    with pytest.raises(UserError, match=r'a\.tif has 2 pages'):
        check_mask(path)
    write_tiff(path, MASK, turn=6)
    with pytest.raises(UserError, match=r'a\.tif has an orientation tag'):
        check_mask(path)
    exif = Image.Exif()
    exif[0x112] = 3
    Image.fromarray(MASK).save(tmp_path / 'a.png', exif=exif)
    with pytest.raises(UserError, match=r'a\.png has an orientation tag'):
        read_mask(tmp_path / 'a.png')


def save_with_palette(path, order):
    """The classes 0, 1 and 2 in their colours; their values as told."""
    colours = np.array([[0, 0, 0], [200, 0, 0], [0, 0, 200]], np.uint8)
    image = Image.fromarray(np.argsort(order)[MASK].astype(np.uint8))
    image.putpalette(colours[order].tobytes())
    image.save(path)


def test_palettes_of_different_order_are_refused(tmp_path):
    check = CheckAnnotations(num_classes=3)

    def load(name, order):
        path = tmp_path / name
        save_with_palette(path, np.array(order))
        label = np.array(Image.open(path))
        return dict(gt_seg_map=label, seg_map_path=str(path))

    check(load('a.png', [0, 1, 2]))
    check(load('b.png', [0, 1, 2]))
    with pytest.raises(UserError, match=r'value 1 in .*c\.png, but 2 in'):
        check(load('c.png', [0, 2, 1]))


def test_a_palette_that_tells_nothing_apart_is_passed_over(tmp_path):
    check = CheckAnnotations(num_classes=3)
    for name, value in (('a', 0), ('b', 1)):
        image = Image.fromarray(np.where(MASK == 1, 255, value).astype('u1'))
        image.putpalette([0, 0, 0, 255, 255, 255] if value else [9, 9, 9])
        image.save(tmp_path / f'{name}.png')
        label = np.array(Image.open(tmp_path / f'{name}.png'))
        check(dict(gt_seg_map=label, seg_map_path=f'{tmp_path}/{name}.png'))


def survey(*maps, classes=('ground', 'object'), **options):
    found = LabelSurvey(classes, **options)
    for number, labels in enumerate(maps):
        found.add(f'{number}.png', labels)
    return found


def test_black_and_white():
    (line,) = survey({0, 255}, {0}, {255}).black_and_white()
    assert '3 masks hold 0 and 255 alone' in line
    assert 'If 255 means object' in line
    assert survey({0, 255}, {0, 1}).black_and_white() == []
    assert survey({0}).black_and_white() == []
    assert survey({0, 255}, classes=['all']).black_and_white() == []
    assert survey({0, 255}, changed=True).black_and_white() == []
    assert survey({0, 255}, ignore_index=9).black_and_white() == []


def test_some_drawn_with_1_and_some_with_255():
    (line,) = survey({0, 1}, {0}, {0, 255}, {255}).two_kinds()
    assert (
        '1 masks hold object or later classes and no 255 (0.png), 2 ' in line
    )
    assert 'hold 255 and none of these (2.png)' in line
    names = ('a', 'b', 'c')
    assert survey({0, 2}, {0, 255}, classes=names).two_kinds()
    # There 255 is the border of an object.
    assert survey({0, 1}, {0, 255}, {0, 1, 255}).two_kinds() == []
    assert survey({0, 1}, {0}).two_kinds() == []


def test_a_class_that_never_occurs():
    assert survey({0}, {255}).absent() == ['object']
    assert survey({0}, {1}).absent() == []


def test_numbers_are_counted_as_they_are_written(tmp_path):
    """A mask of OpenCV is read as one of Pillow."""
    cv2.imwrite(str(tmp_path / 'a.png'), MASK)
    labels, palette = read_mask(tmp_path / 'a.png')
    assert (labels == MASK).all()
    assert palette == []
