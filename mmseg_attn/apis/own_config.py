# Copyright (c) mmseg_attn contributors.
"""The config of a training on somebody's own pictures and masks."""

from pathlib import Path

from mmengine.config import Config, ConfigDict

from ..configs import OWN_BACKBONES, OWN_METHODS, load_config
from ..engine.adapt import replace_type
from .own_data import OwnData
from .own_recipe import Recipe, training_config


def own_config(data: OwnData, folder: Path, recipe: Recipe) -> Config:
    """Make the config of a training on one's own pictures.

    Args:
        data: What was read.
        folder: Where its masks and lists are
            (:func:`~mmseg_attn.apis.own_data.write_own_data`).
        recipe: What is trained, and how.

    Returns:
        A whole config, which ``mim train`` takes when it is dumped.
    """
    cfg = load_config(recipe.published or _name(recipe))
    _set_model(cfg.model, len(data.classes.names), recipe)
    train, val = _pipelines(recipe)
    own = training_config(
        cfg,
        recipe,
        dict(
            train=_dataset(data, folder, 'train', train),
            val=_dataset(data, folder, 'val', val),
        ),
        evaluator=dict(type='mmseg_attn.ClassIoUMetric'),
        metric='mIoU',
        rates=(1e-3, 3e-4),
        visualization='SegVisualizationHook',
        sheet='mmseg_attn.ValidationSheetHook',
    )
    own.crop_size = (recipe.crop, recipe.crop)
    return own


def _name(recipe: Recipe) -> str:
    """The config whose model is taken."""
    method = OWN_METHODS[recipe.method]
    backbone = OWN_BACKBONES[recipe.backbone]
    return f'{method}_{backbone}_4xb4-80k_ade20k-512x512.py'


def _set_model(model: ConfigDict, classes: int, recipe: Recipe) -> None:
    model.data_preprocessor.size = (recipe.crop, recipe.crop)
    model.data_preprocessor.pop('test_cfg', None)
    heads = _heads(model)
    for head in heads:
        head.num_classes = classes
    replace_type(model, 'SyncBN', 'BN')  # one process
    model.test_cfg = dict(mode='whole')
    backbone = model.backbone
    if recipe.scratch or recipe.weights:
        model.pretrained = None
        backbone.pop('init_cfg', None)
    if recipe.published:
        return
    if recipe.stride == 16 and 'dilations' in backbone:
        backbone.update(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    if recipe.backbone == 'r18':
        backbone.depth = 18
        if model.pretrained:
            model.pretrained = 'open-mmlab://resnet18_v1c'
        for head in heads:
            widths = head.in_channels
            head.in_channels = (
                [width // 4 for width in widths]
                if isinstance(widths, (list, tuple))
                else widths // 4
            )
            head.channels //= 4


def _heads(model: ConfigDict) -> list[ConfigDict]:
    """Of a segmentor, one after the other."""
    heads = []
    for name in ('decode_head', 'auxiliary_head'):
        found = model.get(name) or []
        heads += found if isinstance(found, list) else [found]
    return heads


def _pipelines(recipe: Recipe) -> tuple[list[dict], list[dict]]:
    crop = recipe.crop
    cut = dict(type='RandomCrop', cat_max_ratio=0.9)
    if recipe.balance:
        cut = dict(type='mmseg_attn.BalancedCrop')
    train = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(
            type='RandomResize',
            scale=(16 * crop, crop),
            ratio_range=(0.75, 1.75),
            keep_ratio=True,
        ),
        dict(**cut, crop_size=(crop, crop)),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]
    test = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(16 * crop, crop), keep_ratio=True),
        # After the resizing: the labels are compared at their own size.
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ]
    return train, test


def _dataset(
    data: OwnData, folder: Path, split: str, pipeline: list[dict]
) -> dict:
    return dict(
        type='mmseg_attn.FolderDataset',
        data_root=str(folder.resolve()),
        ann_file=f'{split}.txt',
        data_prefix=dict(img_path=str(data.images), seg_map_path='masks'),
        img_suffix='',
        seg_map_suffix='.png',
        pipeline=pipeline,
    )
