# Copyright (c) mmseg_attn contributors.
"""From pictures and annotations in COCO's format to a trained detector."""

import json
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import InstanceData

from mmseg_attn.__main__ import main
from mmseg_attn.apis import own_detector, own_training
from mmseg_attn.apis.own_coco import (
    instance_table,
    read_own_instances,
    write_own_instances,
)
from mmseg_attn.apis.own_recipe import Recipe
from mmseg_attn.apis.own_training import INSTANCES, plan_training
from mmseg_attn.apis.rehearsal import Cost
from mmseg_attn.configs import OWN_DETECTORS, load_config
from mmseg_attn.datasets.scenes import write_folder
from mmseg_attn.engine import InstanceSheetHook

make_config = own_detector.own_detector
compiled = pytest.mark.skipif(
    bool(own_detector.missing_for('mmdet')), reason='no compiled operators'
)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    write_folder(folder, train=4, val=4)
    return folder


def read(scenes, **options):
    return read_own_instances(
        scenes / 'images/train', scenes / 'annotations/train.json', **options
    )


def content_of(scenes):
    path = scenes / 'annotations/train.json'
    return json.loads(path.read_text())


def test_pictures_without_annotations_and_missing_classes(scenes, tmp_path):
    content = content_of(scenes)
    first, *_, last = (image['id'] for image in content['images'])
    ring = content['categories'][-1]
    content['annotations'] = [
        a
        for a in content['annotations']
        if a['image_id'] != first
        and (a['category_id'] != ring['id'] or a['image_id'] == last)
    ]
    path = tmp_path / 'some.json'
    path.write_text(json.dumps(content))
    val = tmp_path / 'val.json'
    content['annotations'] = [
        a for a in content['annotations'] if a['category_id'] != ring['id']
    ]
    val.write_text(json.dumps(content))
    data = read_own_instances(
        scenes / 'images/train', path, val_annotations=val
    )
    assert [len(pictures) for pictures in data.splits.values()] == [3, 4]
    assert data.notes == [
        '1 pictures to train on have no annotation and are left out'
    ]
    assert data.warnings() == [
        f'class {ring["name"]} is in no validation picture, so its AP cannot '
        'be measured'
    ]
    assert instance_table(data).splitlines()[-1] == (
        f'| {ring["name"]} | 2 | 1 | 0 | 0 |'
    )


@compiled
@pytest.mark.parametrize('scratch', [True, False])
@pytest.mark.parametrize('method', OWN_DETECTORS)
def test_small_models_of_all_methods(scenes, method, scratch):
    recipe = Recipe(method, 'r18', scratch)
    cfg = make_config(read(scenes), scenes, recipe)
    if (method, scratch) == ('ea', True):
        small = load_config(
            'mask-rcnn_r18-ea5_fpn_1xb4-1k_demo-instances-96x96'
        ).model
        assert cfg.model.to_dict() == small.to_dict()
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    assert model.backbone.depth == 18
    names = [name for name, _ in model.named_parameters()]
    assert any('layer3.attention' in name for name in names)
    width = model.backbone.conv1.weight.shape[0]
    assert width == (32 if scratch else 64)
    known = cfg.model.backbone.init_cfg
    assert (known is None) if scratch else ('resnet18' in known.checkpoint)


@pytest.mark.parametrize('backbone', ['r50', 'r101'])
def test_large_models(scenes, backbone):
    data = read(scenes)
    known, random, given = (
        make_config(data, scenes, Recipe('isa', backbone, **kind))
        for kind in ({}, {'scratch': True}, {'weights': 'w.pth'})
    )
    assert backbone[1:] in known.model.backbone.init_cfg.checkpoint
    assert known.model.backbone.depth == int(backbone[1:])
    assert known.model.backbone.frozen_stages == 1
    # What is random is trained, all of it.
    assert random.model.backbone.init_cfg is None
    assert random.model.backbone.frozen_stages == -1
    assert not random.model.backbone.norm_eval
    assert given.model.backbone.init_cfg is None
    assert given.model.backbone.frozen_stages == 1
    assert given.load_from == 'w.pth'
    for head in ('bbox_head', 'mask_head'):
        assert known.model.roi_head[head].num_classes == 6
    assert known.default_hooks.checkpoint.save_best == 'coco/segm_mAP'


@compiled
def test_what_the_detector_gets(scenes, tmp_path):
    data = read(scenes, share=0.5)
    write_own_instances(data, tmp_path)
    cfg = make_config(data, tmp_path, Recipe(crop=64))
    init_default_scope('mmdet')
    train, val = (
        DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        for split in ('train', 'val')
    )
    assert (len(train), len(val)) == (2, 2)
    sides = {max(train[0]['inputs'].shape[1:]) for _ in range(12)}
    assert len(sides) > 1 and min(sides) >= 51 and max(sides) <= 77
    sample = val[0]
    assert max(sample['inputs'].shape[1:]) == 64
    # Sheets draw the truth on the picture, which has 96 x 96 pixels.
    assert sample['data_samples'].gt_instances.masks.width == 96


def test_plan(scenes, tmp_path, monkeypatch):
    tried = []

    def rehearse(cfg):
        tried.append(cfg.optim_wrapper.type)
        return Cost(step=2.0, picture=0.5, start=10, memory=1e6)

    monkeypatch.setattr(own_training, 'rehearse', rehearse)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    recipe = Recipe('ea', 'r18', scratch=True, crop=64, batch=2)
    plan = plan_training(
        read(scenes), tmp_path, recipe, target=INSTANCES, minutes=5
    )
    # RoIAlign has no bfloat16.
    assert tried == ['OptimWrapper']
    cfg = Config.fromfile(plan.config)
    # Ten validations of one picture.
    assert cfg.train_cfg.max_iters == (300 - 10 - 10 * 0.5) // 2
    text = '\n'.join(plan.lines())
    assert '3 pictures to train on, 1 to validate with' in text
    assert 'scaled to a longer side of 64, 2 in a step' in text
    assert 'output stride' not in text and 'products in float32' in text
    assert INSTANCES.fitting_crop(read(scenes)) == 96


@compiled
def test_sheet_draws_what_is_likely(tmp_path):
    picture = np.full((40, 60, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    hook = InstanceSheetHook(height=40)
    meta = dict(classes=('drop',), palette=[(255, 0, 0)])
    loader = MagicMock()
    loader.__len__.return_value = 1
    loader.dataset.metainfo = meta
    runner = Mock(val_dataloader=loader, work_dir=str(tmp_path), iter=7)
    parts = []
    for score in (0.2, 0.9):
        instances = dict(
            bboxes=torch.tensor([[10.0, 10, 30, 30]]), labels=torch.tensor([0])
        )
        sample = SimpleNamespace(
            img_path=str(tmp_path / 'a.png'),
            gt_instances=InstanceData(**instances),
            pred_instances=InstanceData(
                **instances, scores=torch.tensor([score])
            ),
        )
        hook.before_val_epoch(runner)
        hook.after_val_iter(runner, 0, outputs=[sample])
        hook.after_val_epoch(runner)
        sheet = cv2.imread(str(tmp_path / 'sheets/iter_000007.png'))
        assert sheet.shape == (46, 180, 3)
        parts.append([(part == 90).all() for part in np.hsplit(sheet[:40], 3)])
    assert parts == [[True, False, True], [True, False, False]]


DOOR = ('--images', 'images/train', '--coco', 'annotations/train.json')


@pytest.mark.parametrize(
    'options, message',
    [
        (('--masks', 'masks'), '--images needs either --masks'),
        (('--classes', 'a,b'), '--classes is for --masks alone'),
        (('--from', 'x'), '--from is for --masks alone'),
        (('--balance',), '--balance is for --masks alone'),
        (('--method', 'sanet'), '--method sanet is for segmentors, no detec'),
        (('--backbone', 'swin-t'), 'expected one of r18, r50, r101'),
        (('--val-coco', 'none.json'), 'none.json does not exist'),
        (('--val-images', 'none'), 'not in none'),
        (('--crop', '8'), 'got crop 8, expected a number from 32'),
        (('--out', 'images/train/mine'), 'where nothing shall be written'),
    ],
)
def test_mistakes(scenes, options, message, monkeypatch):
    monkeypatch.chdir(scenes)
    monkeypatch.setattr(own_detector, 'missing_for', lambda scope: None)
    if '--val-images' in options:
        options += ('--val-coco', 'annotations/val.json')
    with pytest.raises(SystemExit) as end:
        main(['train', *DOOR, *options])
    assert message in end.value.code
    assert '\n' not in end.value.code
    assert not (scenes / 'work_dirs').exists()


def test_what_is_for_coco_and_what_is_to_be_installed(scenes, monkeypatch):
    monkeypatch.chdir(scenes)
    with pytest.raises(SystemExit, match='--val-coco is for --coco alone'):
        main(['train', *DOOR[:2], '--masks', 'm', '--val-coco', 'x.json'])
    reason = 'mmcv has no compiled operators, compile them'
    monkeypatch.setattr(own_detector, 'missing_for', lambda scope: reason)
    with pytest.raises(SystemExit, match=reason):
        main(['train', *DOOR])
    assert not (scenes / 'work_dirs').exists()


@compiled
@pytest.mark.slow
def test_trains_shows_and_predicts(scenes, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    call = ['train', '--images', str(scenes / 'images/train')]
    call += ['--coco', str(scenes / 'annotations/train.json'), '--scratch']
    call += ['--val-images', str(scenes / 'images/val')]
    call += ['--val-coco', str(scenes / 'annotations/val.json')]
    call += ['--backbone', 'r18', '--method', 'ea', '--iters', '2']
    call += ['--batch-size', '2', '--crop', '64', '--out', 'mine']
    main([*call, '--dry-run'])
    said = capfd.readouterr().out
    assert '4 pictures to train on, 4 to validate with' in said
    assert not (tmp_path / 'mine/run').exists()
    main(['train', 'mine/config.py'])
    run = tmp_path / 'mine/run'
    assert len(list((run / 'sheets').iterdir())) == 2
    options = ['--cfg-options', 'train_cfg.max_iters=3']
    main(['train', 'mine/config.py', '--resume', *options])
    assert [path.name for path in run.glob('iter_*.pth')] == ['iter_3.pth']
    capfd.readouterr()
    pictures = str(scenes / 'images/val')
    main(['predict', 'mine/config.py', 'mine/run/iter_3.pth', pictures])
    assert '4 of 4 inputs done' in capfd.readouterr().out
