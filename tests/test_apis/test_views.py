# Copyright (c) mmseg_attn contributors.
"""Test-time augmentation of every kind of config, or why there is none."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS, init_default_scope

from mmseg_attn.apis.tasks import task_of
from mmseg_attn.apis.test_pipelines import add_picture_views
from mmseg_attn.apis.testing import merge_views
from mmseg_attn.errors import UserError

ROOT = Path(__file__).parents[2] / 'configs'
# One config of each data set and task.
EACH = {
    re.search(r'_((?:demo-)?[a-z0-9-]+?)(-\d+x\d+)?\.py$', path.name)[1]
    + f' {re.match("[a-z]+", path.name)[0]}' * ('rcnn' in path.name): path
    for path in sorted(ROOT.glob('*/*.py'))
    if '_base_' not in path.parts
}
FRAMES = 3


@pytest.mark.parametrize('name', EACH)
def test_every_config_has_views_or_says_why(name):
    cfg = Config.fromfile(EACH[name])
    task = task_of(cfg)
    if task.takes_pairs:
        with pytest.raises(UserError, match='left and right change places'):
            task.add_views(cfg)
        return
    if 'mask' in EACH[name].name:
        with pytest.raises(UserError, match='nothing for the masks'):
            task.add_views(cfg)
        return
    task.add_views(cfg)
    init_default_scope(cfg.default_scope)
    Compose(cfg.tta_pipeline)  # all of its steps exist
    *sizes, flips = cfg.tta_pipeline[-1].transforms[: 2 - (name == 'lip')]
    assert len(flips) == 2 and 'RandomFlip' in str(flips)
    if sizes and task.title != 'detector':
        assert len(sizes[0]) >= 6


def test_all_kinds_are_here():
    assert {'gid15', 'camvid', 'demo-clips', 'kitti2015'} <= set(EACH)
    assert {'coco mask', 'coco faster', 'sceneflow', 'lip'} <= set(EACH)


def test_scales_are_those_of_the_test_pipelines_resize():
    load, pack = dict(type='LoadImageFromFile'), dict(type='PackSegInputs')
    resize = dict(type='Resize', scale=(2048, 512), keep_ratio=True)
    annotations = dict(type='LoadAnnotations')
    pipeline = [load, resize, annotations, pack]
    cfg = Config(dict(model={}))
    cfg.test_dataloader = dict(dataset=dict(pipeline=pipeline))
    merge_views(cfg, add_picture_views)
    made = cfg.tta_pipeline
    assert cfg.test_dataloader.dataset.pipeline == made
    assert made[0] == load
    sizes, flips, *rest = made[1]['transforms']
    assert [size['scale'] for size in sizes] == [
        (1024, 256),
        (1536, 384),
        (2048, 512),
        (2560, 640),
        (3072, 768),
        (3584, 896),
    ]
    assert [flip['prob'] for flip in flips] == [0.0, 1.0]
    assert rest == [[annotations], [pack]]


def test_without_a_resize_from_the_pictures_own_size(tmp_path):
    """As of the patches of GID-15; labels keep their size."""
    cfg = Config.fromfile(ROOT / '_base_/datasets/gid15.py')
    add_picture_views(cfg)
    init_default_scope('mmseg')
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    cv2.imwrite(str(tmp_path / 'mask.png'), picture[..., 0] % 15)
    item = Compose(cfg.tta_pipeline)(
        dict(
            img_path=str(tmp_path / 'a.png'),
            seg_map_path=str(tmp_path / 'mask.png'),
            reduce_zero_label=False,
            seg_fields=[],
        )
    )
    ratios = (0.5, 0.75, 1, 1.25, 1.5, 1.75)
    expected = [(int(32 * r), int(48 * r)) for r in ratios for _ in (0, 1)]
    assert [tuple(x.shape[1:]) for x in item['inputs']] == expected
    same, mirrored = item['inputs'][4:6]
    assert np.array_equal(same.permute(1, 2, 0), picture)
    assert torch.equal(mirrored, same.flip(-1))
    labels = [x.gt_sem_seg.data.shape for x in item['data_samples']]
    assert set(labels) == {(1, 32, 48)}


@pytest.fixture
def clip(tmp_path):
    """A clip as the dataset gives it: its frames on disk."""
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f'{n}.png') for n in range(FRAMES)]
    for path in paths:
        cv2.imwrite(path, rng.integers(0, 256, (32, 48, 3), np.uint8))
    mask = str(tmp_path / 'mask.png')
    cv2.imwrite(mask, np.zeros((32, 48), np.uint8))
    return dict(
        img_path=paths[1],
        frame_paths=paths,
        label_frame=1,
        seg_map_path=mask,
        reduce_zero_label=False,
        seg_fields=[],
    )


@pytest.mark.parametrize('data', ['camvid', 'demo-clips'])
def test_frames_of_a_clip_are_treated_alike(data, clip):
    path = ROOT / f'_base_/datasets/{data.removesuffix("-clips")}-clips.py'
    cfg = Config.fromfile(path)
    cfg.model = dict(type='mmseg_attn.ClipEncoderDecoder')
    if data == 'camvid':
        (resize,) = cfg.test_dataloader.dataset.pipeline[1].transforms
        resize.scale = (48, 32)
    task_of(cfg).add_views(cfg)
    init_default_scope('mmseg')
    item = Compose(cfg.tta_pipeline)(clip)
    frames = np.stack([cv2.imread(p) for p in clip['frame_paths']])
    sides = [(16, 24), (24, 36), (32, 48), (40, 60), (48, 72), (56, 84)]
    views = iter(item['inputs'])
    for same, mirrored, size in zip(views, views, sides, strict=True):
        assert same.shape == (3, FRAMES, *size)
        assert torch.equal(mirrored, same.flip(-1))
        if size == (32, 48):
            assert np.array_equal(same.permute(1, 2, 3, 0), frames)


def test_a_mirrored_clip_gets_the_mirrored_prediction(clip):
    """Through the model: views are turned back before they are averaged."""
    norm = dict(type='BN', requires_grad=True)
    head = dict(
        type='mmseg_attn.CCHead3D',
        in_channels=64,
        in_index=3,
        channels=16,
        num_classes=5,
        norm_cfg=norm,
    )
    cfg = Config.fromfile(ROOT / '_base_/datasets/demo-clips.py')
    cfg.model = dict(
        type='mmseg_attn.ClipEncoderDecoder',
        data_preprocessor=dict(
            type='mmseg_attn.ClipDataPreProcessor',
            mean=[110.0] * 3,
            std=[50.0] * 3,
            pad_val=0,
            seg_pad_val=255,
        ),
        backbone=dict(
            type='ResNet',
            depth=18,
            base_channels=8,
            strides=(1, 1, 1, 1),
            norm_cfg=norm,
        ),
        decode_head=head,
        test_cfg=dict(mode='whole'),
    )
    merge_views(cfg, task_of(cfg).add_views)
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    model.module.decode_head.conv_seg.weight.data.normal_()

    def predict():
        item = Compose(cfg.tta_pipeline)(dict(clip))
        data = dict(
            inputs=[[x] for x in item['inputs']],
            data_samples=[[x] for x in item['data_samples']],
        )
        with torch.no_grad():
            return model.test_step(data)[0].pred_sem_seg.data.squeeze()

    found = predict()
    for path in clip['frame_paths']:
        cv2.imwrite(path, np.ascontiguousarray(cv2.imread(path)[:, ::-1]))
    turned = predict()
    assert found.shape == (32, 48) and len(found.unique()) > 1
    assert torch.equal(turned.flip(-1), found)
