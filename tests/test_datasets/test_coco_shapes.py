# Copyright (c) mmseg_attn contributors.
"""Masks of annotations that pycocotools cannot read, kind by kind."""

import json

import numpy as np
import pytest

from mmseg_attn.datasets.coco import check_coco
from mmseg_attn.errors import UserError


@pytest.fixture
def content():
    """Annotations 1 to 4 on a picture of 96 x 96 pixels."""
    item = {'image_id': 1, 'category_id': 1, 'area': 264, 'iscrowd': 0}
    item |= {'bbox': [8, 8, 22, 12], 'segmentation': [ROW]}
    return {
        'images': [{'id': 1, 'file_name': 'a', 'width': 96, 'height': 96}],
        'categories': [{'id': 1, 'name': 'box'}],
        'annotations': [{**item, 'id': number} for number in range(1, 5)],
    }


def check(tmp_path, content):
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps(content))
    return check_coco(path, masks=True)


def test_a_good_one(tmp_path, content):
    assert check(tmp_path, content).usable == 4


FAR = [-64, -21, 2e8, 3.5e8, 25, 36]
ROW = [8, 8, 30, 8, 30, 20]


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ([[float('nan'), 8, 30, 8, 30, 20]], r'the polygon \[nan, 8, 30'),
        ([[float('inf'), 8, 30, 8, 30, 20]], r'the polygon \[inf, 8, 30'),
        ([[None, 8, 30, 8, 30, 20]], r'the polygon \[None, 8, 30'),
        ([['8', 8, 30, 8, 30, 20]], r"the polygon \['8', 8, 30"),
        ([FAR], r'a polygon with the number 2e.08, far outside of its'),
        ([[-1e9, 8, 30, 8, 30, 20]], 'a polygon with the number -1e.09, far'),
        ([[[8, 8], [30, 8], [30, 20]]], 'a polygon of pairs: .*expected .*x,'),
        ([[ROW]], 'a polygon in a list'),
        (ROW, 'the polygon 8, expected'),
        ([[0.1, 0.1, 0.3, 0.1, 0.3, 0.2]], 'the polygon .*, as fractions of'),
        ([[100, 100, 120, 100, 120, 120]], 'a polygon outside of its picture'),
        (json.dumps([ROW]), 'the segmentation .* .JSON inside of JSON., exp'),
        (7, 'the segmentation 7, expected'),
        ({'counts': ''}, 'a run-length code of 0 pixels, expected 96 x 96'),
        ({'counts': 'hello world, no code'}, "the run-length code 'hello wo"),
        ({'counts': None}, 'the run-length code None, expected whole'),
        ({'counts': ['9216']}, r"the run-length code \['9216'\], expected"),
        ({'counts': [9217, -1]}, r'the run-length code \[9217, -1\], expe'),
        ({'counts': [9216.0]}, r'the run-length code \[9216\.0\], expected'),
        ({'counts': [[9216]]}, 'the run-length code .*, expected whole'),
        ({'counts': {}}, 'the run-length code {}, expected whole numbers'),
        ({'counts': 'oooooooooooooooooooo'}, "the run-length code 'ooo"),
        ({'counts': 'a' * 4}, '(the|a) run-length code'),
        ({'counts': 'é'}, "the run-length code 'é', expected"),
    ],
)
def test_shapes_that_pycocotools_cannot_read(
    tmp_path, content, shape, message
):
    """It takes all memory, dies, or takes them for something else."""
    if isinstance(shape, dict):
        shape = {'size': [96, 96], **shape}
    item = content['annotations'][2]
    item.update(segmentation=shape, bbox=[8, 8, 22, 12])
    for change in ({}, {'ignore': 1}, {'iscrowd': 1}, {'area': 0}):
        item.update(change)
        with pytest.raises(UserError, match=rf'annotation id 3 has {message}'):
            check(tmp_path, content)


def as_text(counts):
    """COCO's text of counts, from its description."""
    text = ''
    for place, count in enumerate(counts):
        value = count - (counts[place - 2] if place > 2 else 0)
        while True:
            five, value = value & 31, value >> 5
            # Done where the rest is the sign of what was written last.
            more = value != (-1 if five & 16 else 0)
            text += chr(48 + five + 32 * more)
            if not more:
                break
    return text


@pytest.mark.parametrize(
    'counts',
    [[9226, -10], [10, 9216, -10], [4, 4, 9216, -8], [40, 5000, 5000, -824]],
)
def test_negative_counts_of_the_right_sum(tmp_path, content, counts):
    """pycocotools would write around the mask's memory."""
    assert sum(counts) == 96 * 96
    item = content['annotations'][2]
    for code in (as_text(counts), counts):
        item['segmentation'] = {'size': [96, 96], 'counts': code}
        with pytest.raises(UserError, match='id 3 has the run-length code .*'):
            check(tmp_path, content)
    whole = [abs(count) for count in counts[:-1]]
    whole = [10, 20, 30, 9216 - 60] if len(counts) > 3 else whole
    whole[-1] -= sum(whole) - 9216
    item['segmentation'] = {'size': [96, 96], 'counts': as_text(whole)}
    assert check(tmp_path, content).usable == 4


@pytest.mark.parametrize('size', [[96.0, 96.0], [96], '96', [96, 96, 1], None])
def test_sizes_of_codes_are_two_whole_numbers(tmp_path, content, size):
    code = {'size': size, 'counts': [9216]}
    content['annotations'][2]['segmentation'] = code
    with pytest.raises(UserError, match='id 3 has a run-length code of size'):
        check(tmp_path, content)


def test_codes_are_read_as_pycocotools_reads_them(tmp_path, content):
    mask = pytest.importorskip('pycocotools.mask')
    random = np.random.default_rng(0)
    for share in (0, 0.02, 0.5, 1):
        pixels = (random.random((96, 96)) < share).astype(np.uint8)
        pixels[:40] = 0
        code = mask.encode(np.asfortranarray(pixels))
        counts = code['counts'].decode()
        shape = {'size': [96, 96], 'counts': counts}
        content['annotations'][2]['segmentation'] = shape
        check(tmp_path, content)
        for broken in (counts[:-1], counts + '1', counts + 'o'):
            shape['counts'] = broken
            with pytest.raises(UserError, match='id 3 has .* run-length code'):
                check(tmp_path, content)
