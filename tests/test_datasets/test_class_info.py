# Copyright (c) mmseg_attn contributors.
"""Class names and colours as somebody might write them."""

import json

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmseg_attn.datasets import FolderDataset
from mmseg_attn.engine.data_checks import check_class_lists
from mmseg_attn.errors import UserError

GOOD = {'classes': ['a', 'b'], 'palette': [[0, 0, 0], [255, 128, 0]]}
BAD = [
    ({'classes': 'horse'}, "classes is 'horse', expected a list of names"),
    ({'classes': []}, r'classes is \[\], expected a list'),
    ({'classes': [0, 1]}, 'class 0 is 0, expected a name in quotes'),
    ({'classes': ['a', '']}, "class 1 is '', expected a name"),
    ({'classes': ['a', 'a']}, "names the class 'a' twice"),
    ({'palette': [[0, 0, 0]]}, '1 colours in its palette for 2 classes'),
    ({'palette': ['#000000', '#ff0000']}, "colour 0 .* is '#000000', expec"),
    ({'palette': [[0, 0, 0, 255], [1, 1, 1, 255]]}, r'colour 0 .*, 255\]'),
    ({'palette': [[0, 0, 0], [256, 0, 0]]}, 'colour 1 of the palette'),
    ({'palette': [[0, 0, 0], [0.5, 0, 0]]}, 'colour 1 of the palette'),
    ({'palette': 'viridis'}, "palette is 'viridis', expected a list"),
    ({'groups': ['a']}, r"groups is \['a'\], expected lists"),
    ({'groups': {'thin': 'a'}}, 'groups is .*expected lists'),
]


def folder(root, about):
    init_default_scope('mmseg')
    root.mkdir(exist_ok=True)
    (root / 'dataset.json').write_text(json.dumps(about))
    return FolderDataset(str(root), lazy_init=True)


@pytest.mark.parametrize(('change', 'message'), BAD)
def test_a_folder_with_mistakes_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=rf'dataset\.json.*{message}'):
        folder(tmp_path, GOOD | change)


@pytest.mark.parametrize('palette', [None, []])
def test_a_palette_that_is_none_is_made(tmp_path, palette):
    dataset = folder(tmp_path, GOOD | {'palette': palette})
    assert len(dataset.metainfo['palette']) == 2
    assert folder(tmp_path, GOOD).metainfo['palette'] == GOOD['palette']


def config(*datasets):
    dataset = dict(type='ConcatDataset', datasets=list(datasets))
    init_default_scope('mmseg')
    return Config(dict(train_dataloader=dict(dataset=dataset)))


@pytest.mark.parametrize(('change', 'message'), BAD[:-2])
def test_a_config_with_mistakes_is_refused(change, message):
    meta = GOOD | change
    dataset = dict(type='BaseSegDataset', metainfo=meta, data_prefix={})
    with pytest.raises(UserError, match=f'metainfo of train.*{message}'):
        check_class_lists(config(dataset), 'train_dataloader')


def test_concatenated_datasets_that_differ(tmp_path):
    folder(tmp_path / 'one', GOOD)
    folder(tmp_path / 'two', GOOD | {'classes': ['b', 'a']})
    parts = [
        dict(
            type='mmseg_attn.FolderDataset',
            data_root=f'{tmp_path}/{name}',
            ann_file='',
        )
        for name in ('one', 'two', 'one')
    ]
    check_class_lists(config(parts[0], parts[2]), 'train_dataloader')
    with pytest.raises(UserError, match=r'differ .*one has a, b, .*two has b'):
        check_class_lists(config(*parts), 'train_dataloader')
