# Copyright (c) mmseg_attn contributors.
"""Good and broken annotation files, one fault at a time."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmseg_attn.datasets.coco import (
    CROWD,
    IGNORED,
    NO_AREA,
    OTHER,
    OUTSIDE,
    POLYGON,
    check_coco,
    check_usable,
)
from mmseg_attn.datasets.scenes import write_folder
from mmseg_attn.datasets.scenes.scene import CLASSES
from mmseg_attn.engine.runner import build_runner
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
        classes=CLASSES[1:],
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


def test_other_categories_are_left_out(tmp_path, content):
    report = check(tmp_path, content, classes=CLASSES[1:4])
    others = [a['id'] for a in content['annotations'] if a['category_id'] > 3]
    assert others and report.left_out == {OTHER: others}


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
        (
            {'segmentation': {'size': [96, 96], 'counts': [80, 9]}},
            'id 3 has a run-length code of 89 pixels, expected 96 x 96 = 9216',
        ),
    ],
)
def test_broken_annotation_is_named(tmp_path, content, change, message):
    content['annotations'][2].update(change)
    with pytest.raises(UserError, match=rf'mine\.json, annotation {message}'):
        check(tmp_path, content, masks=True)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'bbox': [0.1, 0.1, 0.5, 0.2]}, r'has the box .*, as fractions of'),
        ({'bbox': [0, 0, float('inf'), 3]}, 'has the box'),
        ({'area': float('nan')}, 'has no area in pixels, but nan'),
        ({'iscrowd': '0'}, "has the iscrowd '0', expected 1"),
    ],
)
def test_numbers_that_cannot_be_meant(tmp_path, content, change, message):
    content['annotations'][2].update(change)
    with pytest.raises(UserError, match=f'annotation id 3 {message}'):
        check(tmp_path, content)


@pytest.mark.parametrize('width', [float('inf'), float('nan'), 96.5, 2**31])
def test_sizes_that_cannot_be_meant(tmp_path, content, width):
    content['images'][0]['width'] = width
    with pytest.raises(UserError, match=r'\.png \(id 1\) is .* wide and 96'):
        check(tmp_path, content)


def test_nothing_that_can_be_used(tmp_path, content):
    for item in content['annotations']:
        item['iscrowd'] = 1
    report = check(tmp_path, content)
    assert report.usable == 0
    with pytest.raises(UserError, match=r'a\.json: none of the 48 .*crowds'):
        check_usable({'a.json': report})
    content['annotations'][0]['iscrowd'] = 0
    other = check(tmp_path, content)
    assert other.usable == 1
    check_usable({'a.json': report, 'b.json': other})
    # Pictures to be tested have no annotations.
    content['annotations'] = []
    check_usable({'a.json': check(tmp_path, content)})


def test_a_nested_file(tmp_path):
    (tmp_path / 'mine.json').write_text('[' * 100000)
    with pytest.raises(UserError, match=r'mine\.json is no JSON file'):
        check_coco(tmp_path / 'mine.json')


def test_broken_files(tmp_path, content, scenes):
    path = tmp_path / 'mine.json'
    with pytest.raises(UserError, match=r'mine\.json does not exist'):
        check_coco(path)
    with pytest.raises(UserError, match='cannot be read: Is a directory'):
        check_coco(tmp_path)
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


@pytest.mark.parametrize(
    ('key', 'what'), [('images', 'pictures'), ('categories', 'categories')]
)
def test_ids_of_two_kinds(tmp_path, content, key, what):
    """pycocotools sorts them."""
    content[key][1]['id'] = 'two'
    content['annotations'] = []
    with pytest.raises(UserError, match=f"{what} .* such as 1 and 'two'"):
        check(tmp_path, content)
    for item in content[key]:
        item['id'] = f'text {item["id"]}'
    check(tmp_path, content)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'id': 0}, 'id 0: evaluation needs ids that are numbers, and not 0'),
        ({'id': 'a'}, 'id a: evaluation needs ids that are numbers'),
        ({'iscrowd': None}, 'id 3 has no iscrowd, which evaluation needs'),
        ({'id': 2**60}, 'evaluation needs ids that are numbers'),
        ({'segmentation': [[1, 2, 9, 9]]}, 'id 3 has a polygon of fewer'),
    ],
)
def test_what_evaluation_needs(tmp_path, content, change, message):
    check(tmp_path, content, evaluated=True)
    content['annotations'][2].update(change)
    check(tmp_path, content)
    with pytest.raises(UserError, match=message):
        check(tmp_path, content, evaluated=True)


def test_why_evaluation_needs_other_ids_than_0(tmp_path, content):
    """Results that are the truth itself have an AP of 1, but for id 0."""
    coco = pytest.importorskip('pycocotools.coco')
    evaluation = pytest.importorskip('pycocotools.cocoeval')
    results = [
        {k: a[k] for k in ('image_id', 'category_id', 'bbox')} | {'score': 1}
        for a in content['annotations']
    ]
    ap = []
    for start in (1, 0):
        for number, item in enumerate(content['annotations'], start):
            item['id'] = number
        path = tmp_path / f'{start}.json'
        path.write_text(json.dumps(content))
        truth = coco.COCO(path)
        run = evaluation.COCOeval(truth, truth.loadRes(results), 'bbox')
        run.evaluate()
        run.accumulate()
        run.summarize()
        ap.append(run.stats[0])
    assert ap[0] == pytest.approx(1)
    assert ap[1] < 0.99


def test_sizes_of_pictures(tmp_path, content):
    folder = tmp_path / 'images'
    folder.mkdir()
    content['images'] = content['images'][:1]
    content['annotations'] = []
    path = folder / content['images'][0]['file_name']
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    picture.save(path, 'jpeg', exif=exif)
    height, width = cv2.imread(str(path)).shape[:2]
    content['images'][0].update(width=width, height=height)
    check(tmp_path, content, folder=folder, sizes=True)
    content['images'][0].update(width=height, height=width)
    check(tmp_path, content, folder=folder)
    with pytest.raises(
        UserError, match=r'\(id 1\) is 30 x 20 pixels there, but 20 x 30 in'
    ):
        check(tmp_path, content, folder=folder, sizes=True)
    path.write_bytes(b'no picture')
    with pytest.raises(UserError, match=f'{path} cannot be read as a pict'):
        check(tmp_path, content, folder=folder, sizes=True)


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


def test_evaluator_with_another_file(cfg, scenes, tmp_path):
    """The ids of its pictures may well be the same."""
    val = (scenes / 'annotations/val.json').read_bytes()
    for name, problem in (
        ('train.json', r'train\.json, another file than .*val\.json'),
        ('none.json', r'none\.json, which does not exist, not .*val\.json'),
    ):
        cfg.val_evaluator.ann_file = str(scenes / 'annotations' / name)
        with pytest.raises(UserError, match=problem):
            build_runner(cfg)
    assert not (tmp_path / 'work').exists()
    copy = tmp_path / 'copy.json'
    copy.write_bytes(val)
    cfg.val_evaluator.ann_file = str(copy)
    build_runner(cfg)


def test_dataset_without_a_file(cfg):
    cfg.train_dataloader.dataset.ann_file = None
    with pytest.raises(UserError, match='train_dataloader has no ann_file'):
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
