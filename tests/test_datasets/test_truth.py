# Copyright (c) mmseg_attn contributors.
import cv2
import numpy as np
import pytest
from tiny_segmentor import CLASSES, PALETTE

from mmseg_attn.datasets.truth import find_masks, read_truth
from mmseg_attn.errors import UserError

ABOUT = dict(classes=CLASSES, palette=PALETTE)
INDICES = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)


@pytest.mark.parametrize(
    'written',
    [INDICES, INDICES * 255, np.array(PALETTE, np.uint8)[INDICES][..., ::-1]],
    ids=['indices', 'black and white', 'colours'],
)
def test_masks_are_read_as_classes(written, tmp_path):
    path = tmp_path / 'one.png'
    cv2.imwrite(str(path), written)
    (found,) = read_truth([path], ABOUT)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, INDICES)


def test_classes_from_1_on(tmp_path):
    path = tmp_path / 'one.png'
    cv2.imwrite(str(path), np.array([[0, 1, 2, 255]], np.uint8))
    (found,) = read_truth([path], ABOUT, reduce_zero_label=True)
    assert found.tolist() == [[255, 0, 1, 255]]
    with pytest.raises(UserError, match='holds 2, which is none of .*ground'):
        read_truth([path], ABOUT)


def test_strange_colours_are_refused(tmp_path):
    path = tmp_path / 'one.png'
    cv2.imwrite(str(path), np.full((1, 1, 3), (3, 2, 1), np.uint8))
    with pytest.raises(UserError, match='the colour #010203'):
        read_truth([path], ABOUT)


def test_masks_have_the_names_of_pictures(tmp_path):
    path = tmp_path / 'masks' / 'one.png'
    path.parent.mkdir()
    cv2.imwrite(str(path), INDICES)
    assert find_masks([tmp_path / 'one.jpg'], path.parent) == [path]
    with pytest.raises(UserError, match='no mask for .*two.jpg: expected'):
        find_masks([tmp_path / 'two.jpg'], path.parent)
    with pytest.raises(UserError, match='does not exist'):
        find_masks([tmp_path / 'one.jpg'], tmp_path / 'none')
