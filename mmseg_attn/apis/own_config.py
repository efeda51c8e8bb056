# Copyright (c) mmseg_attn contributors.
"""The config of a training on somebody's own pictures."""

import os
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict

from ..configs import OWN_BACKBONES, OWN_METHODS, load_config
from ..engine.adapt import replace_type
from ..errors import UserError
from .own_data import OwnData

# Validations in a training, and processes that read pictures, at most.
VALIDATIONS, WORKERS = 10, 8
# Precision of products -> the wrapper of the optimizer that brings it.
WRAPPERS = {
    None: 'OptimWrapper',
    'bfloat16': 'mmseg_attn.BFloat16OptimWrapper',
    'float16': 'AmpOptimWrapper',
}


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how.

    Attributes:
        method: A key of :data:`~mmseg_attn.configs.OWN_METHODS`.
        backbone: A key of :data:`~mmseg_attn.configs.OWN_BACKBONES`.
        scratch: Whether all weights begin at random. Else the backbone has
            those of ImageNet.
        weights: A checkpoint to start from, as far as it fits; or None.
        published: Name of a config of the zoo whose model it is, instead of
            ``method`` and ``backbone``; or None.
        crop: Side of the training crops, in pixels. The pictures are scaled
            so that their shorter side is as long.
        stride: Output stride of a ResNet, 8 or 16: 8 sees more, and costs
            some three times as much. That of a published model stays.
        amp: Precision of products, a key of :data:`WRAPPERS`.
        batch: Pictures in a step.
        iters: Training steps.
        validations: How often it validates.
        balance: Whether crops show rare classes more often.
        patience: Validations without a better mIoU after which the training
            stops; None: never.
        seed: Seed of all that is drawn.
    """

    method: str = 'ccnet'
    backbone: str = 'r50'
    scratch: bool = False
    weights: str | None = None
    published: str | None = None
    crop: int = 512
    stride: int = 8
    amp: str | None = None
    batch: int = 8
    iters: int = 2000
    validations: int = VALIDATIONS
    balance: bool = False
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('crop', 'batch', 'iters', 'validations', 'patience'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(
                    f'got {name} {value}, expected a number from 1 on.'
                )
        if self.crop < 32:
            raise UserError(f'got crop {self.crop}, expected 32 or more.')

    @property
    def interval(self) -> int:
        """Steps from one validation to the next."""
        return -(-self.iters // self.validations)


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
    kept = {
        key: cfg[key]
        for key in ('default_scope', 'env_cfg', 'visualizer', 'log_level')
    }
    _set_model(cfg.model, len(data.classes.names), recipe)
    train, test = _pipelines(recipe)
    loader = _loader(data, folder, 'val', test)
    return Config(
        dict(
            **kept,
            model=cfg.model,
            crop_size=(recipe.crop, recipe.crop),
            train_dataloader=dict(
                batch_size=recipe.batch,
                num_workers=_workers(),
                persistent_workers=True,
                sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=_dataset(data, folder, 'train', train),
            ),
            val_dataloader=loader,
            test_dataloader=loader,
            val_evaluator=dict(type='mmseg_attn.ClassIoUMetric'),
            test_evaluator=dict(type='mmseg_attn.ClassIoUMetric'),
            train_cfg=dict(
                type='IterBasedTrainLoop',
                max_iters=recipe.iters,
                val_interval=recipe.interval,
            ),
            val_cfg=dict(type='ValLoop'),
            test_cfg=dict(type='TestLoop'),
            **_schedule(recipe),
            default_hooks=dict(
                timer=dict(type='IterTimerHook'),
                logger=dict(
                    type='LoggerHook', interval=50, log_metric_by_epoch=False
                ),
                param_scheduler=dict(type='ParamSchedulerHook'),
                checkpoint=dict(
                    type='CheckpointHook',
                    by_epoch=False,
                    interval=recipe.interval,
                    max_keep_ckpts=1,
                    save_best='mIoU',
                ),
                sampler_seed=dict(type='DistSamplerSeedHook'),
                visualization=dict(type='SegVisualizationHook'),
            ),
            custom_hooks=_hooks(recipe),
            log_processor=dict(by_epoch=False),
            load_from=recipe.weights,
            resume=False,
            randomness=dict(seed=recipe.seed),
        )
    )


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


def _loader(
    data: OwnData, folder: Path, split: str, pipeline: list[dict]
) -> dict:
    return dict(
        batch_size=1,
        num_workers=_workers(),
        persistent_workers=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=_dataset(data, folder, split, pipeline),
    )


def _workers() -> int:
    return max(1, min(WORKERS, os.cpu_count() or 1))


def _schedule(recipe: Recipe) -> dict:
    """AdamW with a warm-up, lower rates for weights that know something."""
    known = not recipe.scratch
    warm = max(1, min(500, recipe.iters // 20))
    optimizer = dict(
        type='AdamW', lr=3e-4 if known else 1e-3, weight_decay=0.05
    )
    wrapper = dict(
        type=WRAPPERS[recipe.amp],
        optimizer=optimizer,
        paramwise_cfg=dict(norm_decay_mult=0.0),
        clip_grad=dict(max_norm=5.0, norm_type=2),
    )
    if known:
        wrapper['paramwise_cfg']['custom_keys'] = {
            'backbone': dict(lr_mult=0.25)
        }
    return dict(
        optim_wrapper=wrapper,
        param_scheduler=[
            dict(
                type='LinearLR',
                start_factor=0.01,
                by_epoch=False,
                begin=0,
                end=warm,
            ),
            dict(
                type='PolyLR',
                eta_min=0.0,
                power=0.9,
                by_epoch=False,
                begin=warm,
                end=recipe.iters,
            ),
        ],
    )


def _hooks(recipe: Recipe) -> list[dict]:
    # The mean of the weights of about the last twentieth of the steps.
    momentum = min(0.1, 20 / recipe.iters)
    hooks = [
        dict(
            type='EMAHook',
            ema_type='MomentumAnnealingEMA',
            momentum=momentum,
            update_buffers=True,
            priority='ABOVE_NORMAL',
        ),
        dict(type='mmseg_attn.ValidationSheetHook'),
    ]
    if recipe.patience:
        hooks.append(
            dict(
                type='EarlyStoppingHook',
                monitor='mIoU',
                patience=recipe.patience,
            )
        )
    return hooks
