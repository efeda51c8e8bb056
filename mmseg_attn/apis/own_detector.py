# Copyright (c) mmseg_attn contributors.
"""The config of a training on somebody's own pictures with instances."""

from pathlib import Path

from mmengine.config import Config, ConfigDict

from ..configs import OWN_DETECTORS, load_config
from ..errors import UserError
from ..hosts import missing_for
from .own_coco import OwnInstances, instance_dataset, set_classes
from .own_recipe import Recipe, training_config

# Backbone -> that of the config from which it is made.
DETECTOR_BACKBONES = {'r18': 'r50', 'r50': 'r50', 'r101': 'r101'}
# It learns from random weights within minutes on a CPU.
SMALL = 'mask-rcnn_r18_fpn_1xb4-1k_demo-instances-96x96'
# The longer side of a picture is drawn from so much of the wanted one.
SCALES = (0.8, 1.2)


def check_detector(method: str, backbone: str) -> None:
    """Refuse what no detector is made of, and a host that is not whole.

    Args:
        method: The attention, a key of
            :data:`~mmseg_attn.configs.OWN_METHODS`.
        backbone: A key of :data:`~mmseg_attn.configs.OWN_BACKBONES`.

    Raises:
        UserError: It says what there is, or what to install.
    """
    for what, name, known in (
        ('method', method, OWN_DETECTORS),
        ('backbone', backbone, DETECTOR_BACKBONES),
    ):
        if name not in known:
            raise UserError(
                f'--{what} {name} is for segmentors, no detector has it: '
                f'with --coco expected one of {", ".join(known)}.'
            )
    if problem := missing_for('mmdet'):
        raise UserError(problem)


def own_detector(data: OwnInstances, folder: Path, recipe: Recipe) -> Config:
    """Make the config of a training on one's own pictures with instances.

    Args:
        data: What was read.
        folder: Where its annotations are
            (:func:`~mmseg_attn.apis.own_coco.write_own_instances`).
        recipe: What is trained, and how.

    Returns:
        A whole config of Mask R-CNN, which ``mim train`` takes when it is
        dumped.
    """
    cfg = load_config(
        f'mask-rcnn_{DETECTOR_BACKBONES[recipe.backbone]}-'
        f'{OWN_DETECTORS[recipe.method]}_fpn_1x_coco'
    )
    model = cfg.model
    if recipe.backbone == 'r18':
        model = _r18(model, small=recipe.scratch)
    if recipe.scratch or recipe.weights:
        model.backbone.init_cfg = None
    if recipe.scratch:
        # Nothing that is random stays as it is.
        model.backbone.update(frozen_stages=-1, norm_eval=False)
    set_classes(model, len(data.classes))
    cfg.model = model
    train, val = (instance_dataset(data, folder, s) for s in ('train', 'val'))
    train['filter_cfg'] = dict(filter_empty_gt=True)
    train['pipeline'], val['pipeline'] = _pipelines(recipe.crop)
    val['test_mode'] = True
    return training_config(
        cfg,
        recipe,
        dict(train=train, val=val),
        evaluator=dict(
            type='CocoMetric',
            ann_file=val['ann_file'],
            metric=['bbox', 'segm'],
        ),
        metric='coco/segm_mAP',
        rates=(1e-3, 1e-4),
        visualization='DetVisualizationHook',
        sheet='mmseg_attn.InstanceSheetHook',
    )


def _r18(model: ConfigDict, small: bool) -> ConfigDict:
    """From a model on R-50 the same on R-18, or at an eighth of its width."""
    attention = model.backbone.attentions
    times = 8 if small else 4
    for item in attention:
        for key, value in item.layer.items():
            if key.endswith('channels'):
                item.layer[key] = value // times
    if small:
        plain = load_config(SMALL).model
        plain.backbone.update(type=model.backbone.type, attentions=attention)
        for key in ('type', 'levels', 'layer'):
            if key in model.neck:
                plain.neck[key] = model.neck[key]
        return plain
    model.backbone.update(
        depth=18,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    )
    model.neck.in_channels = [n // times for n in model.neck.in_channels]
    return model


def _pipelines(side: int) -> tuple[list[dict], list[dict]]:
    scale = (side, side)
    labels = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
    train = [
        dict(type='LoadImageFromFile'),
        labels,
        dict(
            type='RandomResize',
            scale=scale,
            ratio_range=SCALES,
            keep_ratio=True,
        ),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs'),
    ]
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    test = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=scale, keep_ratio=True),
        # After the resizing: sheets show them at their own size.
        labels,
        dict(type='PackDetInputs', meta_keys=keys),
    ]
    return train, test
