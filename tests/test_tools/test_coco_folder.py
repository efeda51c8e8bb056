# Copyright (c) mmseg_attn contributors.
"""A folder of one's own becomes a config that trains."""

import json
from collections import Counter
from pathlib import Path

import cv2
import pytest
from in_process import run_script
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmseg_attn.datasets.scenes import write_folder
from mmseg_attn.datasets.scenes.scene import CLASSES

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/dataset_converters/coco_folder.py'
CONFIG = 'mask-rcnn_r18_fpn_1xb4-1k_demo-instances-96x96'


@pytest.fixture
def scenes(tmp_path):
    write_folder(tmp_path / 'scenes', train=8, val=4)
    return tmp_path / 'scenes'


def convert(scenes, out, *options, config=CONFIG):
    return run_script(
        *(TOOL, out, '--config', config),
        *('--images', scenes / 'images/train'),
        *('--annotations', scenes / 'annotations/train.json'),
        *options,
    )


def test_one_file_is_split(scenes, tmp_path):
    out = tmp_path / 'mine'
    done = convert(scenes, out, '--val-share', '0.25', '--size', '64')
    assert done.returncode == 0, done.stderr
    assert 'train: 6 pictures, 36 instances' in done.stdout
    assert 'val: 2 pictures, 12 instances' in done.stdout
    whole = json.loads((scenes / 'annotations/train.json').read_text())
    parts = [
        json.loads((out / f'annotations/{name}.json').read_text())
        for name in ('train', 'val')
    ]
    for key in ('images', 'annotations'):
        found = [item['id'] for part in parts for item in part[key]]
        assert sorted(found) == sorted(item['id'] for item in whole[key])
    for part in parts:
        ids = {image['id'] for image in part['images']}
        assert {a['image_id'] for a in part['annotations']} == ids
    cfg = Config.fromfile(out / 'config.py')
    assert cfg.train_dataloader.dataset.metainfo.classes == CLASSES[1:]
    assert cfg.model.roi_head.bbox_head.num_classes == 6
    assert cfg.model.roi_head.mask_head.num_classes == 6
    for loader in ('train', 'val', 'test'):
        steps = cfg[f'{loader}_dataloader'].dataset.pipeline
        assert [s.scale for s in steps if s.type == 'Resize'] == [(64, 64)]
    again = convert(scenes, out)
    assert again.returncode == 1
    assert 'config.py exists: name another folder' in again.stderr


def test_the_config_trains_and_tests(scenes, tmp_path):
    pytest.importorskip('mmcv._ext', reason='mmcv has no compiled operators')
    path = scenes / 'annotations/train.json'
    content = json.loads(path.read_text())
    # Three classes, with ids of which one is missing.
    content['categories'] = [
        {'id': 9, 'name': 'ring'},
        {'id': 3, 'name': 'flag'},
        {'id': 5, 'name': 'box'},
    ]
    for number, item in enumerate(content['annotations']):
        item['category_id'] = (3, 5, 9)[(item['category_id'] - 1) // 2]
        # What evaluation could not use.
        item['id'] = str(number)
        del item['iscrowd']
    path.write_text(json.dumps(content))
    out = tmp_path / 'mine'
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2']
    options.append('auto_scale_lr.base_batch_size=16')
    options.append('default_hooks.checkpoint.interval=2')
    trained = convert(scenes, out, '--train', '--cfg-options', *options)
    assert trained.returncode == 0, trained.stderr[-2000:]
    cfg = Config.fromfile(out / 'config.py')
    names = cfg.train_dataloader.dataset.metainfo.classes
    assert names == ('ring', 'flag', 'box')
    checkpoint = out / 'work_dir/iter_2.pth'
    assert checkpoint.is_file()
    log = trained.stdout + trained.stderr
    assert 'coco/segm_mAP' in log
    assert 'Scaling the original LR by 0.25' in log
    tested = run_script(
        *(ROOT / 'tools/test.py', out / 'config.py', checkpoint),
        *('--work-dir', tmp_path / 'test'),
    )
    assert tested.returncode == 0, tested.stderr[-2000:]
    assert 'coco/bbox_mAP' in tested.stdout + tested.stderr


def test_labels_have_the_names_of_the_file(scenes, tmp_path):
    # Neither file lists its categories by id, each has another order.
    for name, step in (('train', 5), ('val', -1)):
        path = scenes / f'annotations/{name}.json'
        content = json.loads(path.read_text())
        content['categories'] = [
            content['categories'][step * i % 6] for i in range(6)
        ]
        if name == 'val':
            content['categories'].insert(2, {'id': 77, 'name': 'unknown'})
            content['annotations'][0]['category_id'] = 77
        path.write_text(json.dumps(content))
    options = ('--val-images', str(scenes / 'images/val'))
    options += ('--val-annotations', str(scenes / 'annotations/val.json'))
    done = convert(scenes, tmp_path / 'mine', *options)
    assert done.returncode == 0, done.stderr
    assert 'Note: 1 annotations are left out: of a category' in done.stdout
    cfg = Config.fromfile(tmp_path / 'mine/config.py')
    init_default_scope('mmdet')
    for name in ('train', 'val'):
        dataset = DATASETS.build(cfg[f'{name}_dataloader'].dataset)
        classes = dataset.metainfo['classes']
        content = json.loads((scenes / f'annotations/{name}.json').read_text())
        names = {item['id']: item['name'] for item in content['categories']}
        found = Counter(
            (item['img_id'], classes[instance['bbox_label']])
            for item in map(dataset.get_data_info, range(len(dataset)))
            for instance in item['instances']
        )
        assert found == Counter(
            (item['image_id'], names[item['category_id']])
            for item in content['annotations']
            if item['category_id'] != 77
        )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--val-share', '1.5'), '--val-share must be 0 to 1, got 1.5'),
        (('--size', '8'), '--size must be 32 or more, got 8'),
        (('--val-annotations', 'none.json'), 'none.json does not exist'),
    ],
)
def test_bad_arguments(scenes, tmp_path, options, message):
    done = convert(scenes, tmp_path / 'out', *options)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / 'out').exists()


def test_picture_of_another_size(scenes, tmp_path):
    path = scenes / 'images/train/00003.png'
    cv2.imwrite(str(path), cv2.imread(str(path))[:50])
    done = convert(scenes, tmp_path / 'out')
    assert done.returncode == 1
    assert '00003.png (id 4) is 96 x 96 pixels there, but 96 x' in done.stderr
    assert not (tmp_path / 'out').exists()


def test_no_detector(scenes, tmp_path):
    name = 'fcn_r18-s4_1xb8-1k_demo-scenes-96x96'
    done = convert(scenes, tmp_path / 'out', config=name)
    assert 'is of a segmentor, expected a detector' in done.stderr


def test_nothing_to_validate_with(scenes, tmp_path):
    content = json.loads((scenes / 'annotations/val.json').read_text())
    del content['annotations']
    path = tmp_path / 'bare.json'
    path.write_text(json.dumps(content))
    done = convert(
        scenes,
        tmp_path / 'out',
        *('--val-images', str(scenes / 'images/val')),
        *('--val-annotations', str(path)),
    )
    assert 'none of the 4 pictures for val has an annotation' in done.stderr
    assert not (tmp_path / 'out').exists()
