# Copyright (c) mmseg_attn contributors.
"""Good and broken annotation files, one fault at a time."""

import json
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmseg_attn.apis.runner import build_runner
from mmseg_attn.datasets.coco import (
    CROWD,
    IGNORED,
    NO_AREA,
    OUTSIDE,
    POLYGON,
    check_coco,
)
from mmseg_attn.datasets.scenes import write_folder
from mmseg_attn.datasets.scenes.scene import CLASSES
from mmseg_attn.errors import UserError

CONFIG = Path(__file__).parents[2] / (
    'configs/demo/mask-rcnn_r18_fpn_1xb4-1k_demo-instances-96x96.py'
)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('instances')
    write_folder(folder, train=8, val=4)
    return folder


@pytest.fixture
def content(scenes):
    return json.loads((scenes / 'annotations/train.json').read_text())


def check(tmp_path, content, **options):
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps(content))
    return check_coco(path, **options)


def test_counts_of_a_good_file(scenes, content):
    report = check_coco(
        scenes / 'annotations/train.json',
        scenes / 'images/train',
        CLASSES[1:],
        masks=True,
    )
    assert report.categories == CLASSES[1:]
    assert report.images == 8
    assert report.instances.total() == len(content['annotations']) == 48
    for index, name in enumerate(CLASSES[1:], start=1):
        items = [
            item
            for item in content['annotations']
            if item['category_id'] == index
        ]
        assert report.instances[name] == len(items)
        pictures = {item['image_id'] for item in items}
        assert report.pictures[name] == len(pictures)
    assert report.warnings() == []


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'bbox': [200, 10, 12, 12]}, OUTSIDE),
        ({'bbox': [-20, 10, 12, 12]}, OUTSIDE),
        ({'bbox': [10, 10, 0.5, 12]}, OUTSIDE),
        ({'area': 0}, NO_AREA),
        ({'ignore': 1}, IGNORED),
        ({'iscrowd': 1}, CROWD),
        ({'segmentation': [[1, 2, 3, 4]]}, POLYGON),
    ],
)
def test_what_the_host_leaves_out_is_counted(
    tmp_path, content, change, reason
):
    content['annotations'][2].update(change)
    content['annotations'][5].update(change)
    report = check(tmp_path, content, masks=True)
    ids = [content['annotations'][i]['id'] for i in (2, 5)]
    assert report.left_out == {reason: ids}
    (warning,) = report.warnings()
    assert '2 annotations' in warning
    assert f'ids {ids[0]}, {ids[1]})' in warning


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'bbox': [1, 2, 3]}, r'id 3 has the box \[1, 2, 3\], expected \[x'),
        ({'bbox': [float('nan'), 2, 3, 4]}, 'id 3 has the box'),
        ({'bbox': None}, 'id 3 has the box None'),
        ({'area': None}, 'id 3 has no area'),
        ({'category_id': 17}, 'id 3 has the category 17, expected one of 1, '),
        ({'image_id': 99}, 'id 3 belongs to the picture 99'),
        ({'id': 1}, 'id 1: its id is there twice'),
        ({'image_id': None}, 'id 3 has the image_id None, expected a number'),
        ({'category_id': [1]}, r'id 3 has the category_id \[1\], expected'),
        ({'segmentation': []}, 'id 3 has no segmentation'),
        ({'segmentation': [[1, 2, 3]]}, 'id 3 has a polygon of 3 numbers'),
        (
            {'segmentation': {'size': [9, 9], 'counts': [81]}},
            r'id 3 has a run-length code of size \[9, 9\].*\[96, 96\]',
        ),
    ],
)
def test_broken_annotation_is_named(tmp_path, content, change, message):
    content['annotations'][2].update(change)
    with pytest.raises(UserError, match=rf'mine\.json, annotation {message}'):
        check(tmp_path, content, masks=True)


def test_broken_files(tmp_path, content, scenes):
    path = tmp_path / 'mine.json'
    with pytest.raises(UserError, match=r'mine\.json does not exist'):
        check_coco(path)
    path.write_text(json.dumps(content)[:-30])
    with pytest.raises(UserError, match='no JSON file, or cut off'):
        check_coco(path)
    path.write_text('[]')
    with pytest.raises(UserError, match='expected the lists images, ann'):
        check_coco(path)
    with pytest.raises(UserError, match='has no categories'):
        check(tmp_path, {**content, 'categories': []})
    # A list of pictures to be tested.
    bare = {key: content[key] for key in ('images', 'categories')}
    assert check(tmp_path, bare).images == 8
    twice = {**content, 'images': content['images'] * 2}
    with pytest.raises(UserError, match='the picture id 1 twice'):
        check(tmp_path, twice)
    flat = {**content['images'][0], 'height': '96'}
    with pytest.raises(UserError, match=r"png \(id 1\) is 96 wide and '96'"):
        check(tmp_path, {**content, 'images': [flat]})
    with pytest.raises(UserError, match=r"no category 'person'.*'red flag'"):
        check(tmp_path, content, classes=['person'])
    with pytest.raises(UserError, match='numbers them by the file'):
        check(tmp_path, content, classes=CLASSES[:0:-1])
    # The pictures of the other split are fewer.
    with pytest.raises(UserError, match=r'picture 00004\.png \(id 5\), which'):
        check(tmp_path, content, folder=scenes / 'images/val')


@pytest.fixture
def cfg(scenes, tmp_path):
    pytest.importorskip('mmcv._ext', reason='mmcv has no compiled operators')
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path / 'work')
    for loader in ('train', 'val', 'test'):
        cfg[f'{loader}_dataloader'].dataset.data_root = f'{scenes}/'
        if loader != 'train':
            cfg[f'{loader}_evaluator'].ann_file = str(
                scenes / 'annotations/val.json'
            )
    return cfg


def test_training_checks_first(cfg, tmp_path, content):
    path = tmp_path / 'broken.json'
    content['annotations'][0]['category_id'] = 55
    path.write_text(json.dumps(content))
    cfg.train_dataloader.dataset.ann_file = str(path)
    with pytest.raises(UserError, match=r'broken\.json, annotation id 1 has'):
        build_runner(cfg)
    assert not (tmp_path / 'work').exists()


def test_training_says_what_is_left_out(cfg, tmp_path, content, caplog):
    path = tmp_path / 'outside.json'
    content['annotations'][0]['bbox'] = [500, 500, 9, 9]
    path.write_text(json.dumps(content))
    cfg.train_dataloader.dataset.ann_file = str(path)
    runner = build_runner(cfg)
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert f'{path}: 1 annotations are left out: {OUTSIDE} (ids 1)' in log


def test_classes_that_are_a_text(cfg):
    cfg.train_dataloader.dataset.metainfo = dict(classes=('red flag'))
    with pytest.raises(UserError, match=r"such as \('red flag',\)"):
        build_runner(cfg)


def test_heads_and_classes(cfg):
    cfg.model.roi_head.mask_head.num_classes = 3
    cfg.train_cfg.max_iters = 1
    runner = build_runner(cfg)
    with pytest.raises(UserError, match=r'mask_head\.num_classes is 3, but'):
        runner.train()


def test_second_runner_of_one_second(cfg, tmp_path, monkeypatch):
    """mmengine names scopes by the second; another was chosen in between."""
    monkeypatch.setattr(time, 'strftime', lambda *args: '20000101_000000')
    build_runner(cfg)
    init_default_scope('mmseg')
    cfg.work_dir = str(tmp_path / 'second')
    runner = build_runner(cfg)
    assert type(runner.visualizer).__name__ == 'DetLocalVisualizer'
