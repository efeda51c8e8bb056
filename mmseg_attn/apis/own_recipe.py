# Copyright (c) mmseg_attn contributors.
"""What all trainings on somebody's own pictures have in their configs."""

import os
from dataclasses import dataclass

from mmengine.config import Config

from ..errors import UserError

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
        method: A key of :data:`~mmseg_attn.configs.OWN_METHODS`, or of
            :data:`~mmseg_attn.configs.OWN_DETECTORS` for instances.
        backbone: A key of :data:`~mmseg_attn.configs.OWN_BACKBONES`.
        scratch: Whether all weights begin at random. Else the backbone has
            those of ImageNet.
        weights: A checkpoint to start from, as far as it fits; or None.
        published: Name of a config of the zoo whose model it is, instead of
            ``method`` and ``backbone``; or None.
        crop: Side of the training crops, in pixels. The pictures are scaled
            so that their shorter side is as long. For instances, which are
            not cropped: their longer side.
        stride: Output stride of a ResNet, 8 or 16: 8 sees more, and costs
            some three times as much. That of a published model stays.
        amp: Precision of products, a key of :data:`WRAPPERS`.
        batch: Pictures in a step.
        iters: Training steps.
        validations: How often it validates.
        balance: Whether crops show rare classes more often.
        patience: Validations without a better result after which the
            training stops; None: never.
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
        # The rate rises for a step, and falls for another.
        least = dict(crop=32, batch=1, iters=2, validations=1, patience=1)
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise UserError(
                    f'got {name} {value}, expected a number from {bound} on.'
                )

    @property
    def interval(self) -> int:
        """Steps from one validation to the next."""
        return -(-self.iters // self.validations)


def training_config(
    base: Config,
    recipe: Recipe,
    datasets: dict[str, dict],
    *,
    evaluator: dict,
    metric: str,
    rates: tuple[float, float],
    visualization: str,
    sheet: str,
) -> Config:
    """Make a config of what trains, of any kind.

    Args:
        base: The config with its model, which is ready.
        recipe: What is trained, and how.
        datasets: Those of ``train`` and of ``val``.
        evaluator: What measures.
        metric: What of it the best weights are chosen by.
        rates: Learning rates, from random weights and from known ones.
        visualization: Type of the host's hook that draws what a test
            predicts.
        sheet: Type of the hook that draws a sheet at each validation.

    Returns:
        A whole config, which ``mim train`` takes when it is dumped.
    """
    kept = ('default_scope', 'env_cfg', 'visualizer', 'log_level')
    val = _loader(
        datasets['val'], 1, dict(type='DefaultSampler', shuffle=False)
    )
    return Config(
        dict(
            **{key: base[key] for key in kept},
            model=base.model,
            train_dataloader=_loader(
                datasets['train'],
                recipe.batch,
                dict(type='InfiniteSampler', shuffle=True),
            ),
            val_dataloader=val,
            test_dataloader=val,
            val_evaluator=evaluator,
            test_evaluator=evaluator,
            train_cfg=dict(
                type='IterBasedTrainLoop',
                max_iters=recipe.iters,
                val_interval=recipe.interval,
            ),
            val_cfg=dict(type='ValLoop'),
            test_cfg=dict(type='TestLoop'),
            **_schedule(recipe, *rates),
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
                    save_best=metric,
                ),
                sampler_seed=dict(type='DistSamplerSeedHook'),
                visualization=dict(type=visualization),
            ),
            custom_hooks=_hooks(recipe, metric, sheet),
            log_processor=dict(by_epoch=False),
            load_from=recipe.weights,
            resume=False,
            randomness=dict(seed=recipe.seed),
        )
    )


def _loader(dataset: dict, batch: int, sampler: dict) -> dict:
    return dict(
        batch_size=batch,
        num_workers=max(1, min(WORKERS, os.cpu_count() or 1)),
        persistent_workers=True,
        sampler=sampler,
        dataset=dataset,
    )


def _schedule(recipe: Recipe, random: float, known: float) -> dict:
    """AdamW with a warm-up, lower rates for weights that know something."""
    warm = max(1, min(500, recipe.iters // 20))
    wrapper = dict(
        type=WRAPPERS[recipe.amp],
        optimizer=dict(
            type='AdamW',
            lr=random if recipe.scratch else known,
            weight_decay=0.05,
        ),
        paramwise_cfg=dict(norm_decay_mult=0.0),
        clip_grad=dict(max_norm=5.0, norm_type=2),
    )
    if not recipe.scratch:
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


def _hooks(recipe: Recipe, metric: str, sheet: str) -> list[dict]:
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
        dict(type=sheet),
    ]
    if recipe.patience:
        hooks.append(
            dict(
                type='EarlyStoppingHook',
                monitor=metric,
                patience=recipe.patience,
                # mmengine's 0.1 is ten points of an mAP from 0 to 1.
                min_delta=1e-4,
            )
        )
    return hooks
