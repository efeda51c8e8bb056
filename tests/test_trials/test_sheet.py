# Copyright (c) mmseg_attn contributors.
"""The sheets of demo and compare."""

import numpy as np
import pytest

from mmseg_attn.datasets.camvid import CamVidDataset
from mmseg_attn.trials.sheet import make_grid

CAMVID = CamVidDataset.METAINFO
CASES = {
    'CamVid': CAMVID['classes'],
    'two short names': ('a', 'b'),
    'long names': [f'{name} and others of its kind' for name in 'abcdefgh'],
    'one very long name': ['background', 'W' * 200],
}


@pytest.mark.parametrize('columns', [3, 4, 8])
@pytest.mark.parametrize('names', CASES.values(), ids=CASES)
def test_legend_and_title_fit(columns, names):
    about = dict(classes=names, palette=CAMVID['palette'][: len(names)])
    pictures = [np.zeros((36, 48, 3), np.uint8)] * 2
    masks = [np.full((36, 48), 255, np.uint8)] * 2
    title = 'Where predictions differ most, of 100 pictures. ' * 3
    figure, axes = make_grid(
        list('abcdefgh')[:columns], pictures, about, masks, title
    )
    figure.draw_without_rendering()
    sheet = figure.bbox
    (legend,) = figure.legends
    lowest = min(axis.get_window_extent().y0 for axis in axes.flat)
    place = legend.get_window_extent()
    assert sheet.x0 <= place.x0 and place.x1 <= sheet.x1
    assert sheet.y0 <= place.y0 and place.y1 <= lowest
    place = figure._suptitle.get_window_extent()
    assert sheet.x0 <= place.x0 and place.x1 <= sheet.x1
    assert place.y1 <= sheet.y1
    # None is left out, and pictures keep their space.
    assert len(legend.get_texts()) == len(names) + 1
    assert axes[0, 0].get_window_extent().width > 200
