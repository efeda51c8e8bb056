# Copyright (c) mmseg_attn contributors.
"""The test pipeline of a config, and that of test-time augmentation."""

import copy
from collections.abc import Callable

from mmengine.config import Config, ConfigDict

from ..errors import UserError

# Scales of MMSegmentation's own test-time augmentation.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
CLIP_TRANSFORM = 'mmseg_attn.ClipTransform'


def test_dataset(cfg: Config) -> ConfigDict:
    """Find the dataset that a config tests on, without its wrappers.

    Args:
        cfg: The config.

    Returns:
        The dataset's config, empty where there is none.
    """
    dataset = cfg.get('test_dataloader', cfg.get('val_dataloader'))
    dataset = dataset.dataset if dataset else ConfigDict()
    while 'dataset' in dataset:  # wrapped
        dataset = dataset.dataset
    return dataset


def test_pipeline(cfg: Config) -> list:
    """Find the pipeline that a config tests with.

    Args:
        cfg: The config.

    Returns:
        Configs of its steps, the first of which reads a picture.

    Raises:
        UserError: There is none.
    """
    pipeline = test_dataset(cfg).get('pipeline', cfg.get('test_pipeline'))
    if not pipeline:
        raise UserError(
            'The config has neither `test_dataloader.dataset.pipeline` nor '
            '`test_pipeline`, one of which says how to read a picture.'
        )
    return pipeline


def tta_model(cfg: Config) -> ConfigDict:
    """Take the model of test-time augmentation out of a config.

    Args:
        cfg: With ``tta_model``.

    Returns:
        Its config, ours in place of MMSegmentation's, which is wrong for one
        logit and the same for several.
    """
    config = copy.deepcopy(cfg.tta_model)
    if config.type in ('SegTTAModel', 'mmseg.SegTTAModel'):
        config.type = 'mmseg_attn.SegTTAModel'
    return config


def add_picture_views(cfg: Config) -> None:
    """Give a config six scales and a flip to average over.

    Args:
        cfg: Config of a segmentor. Its own ``tta_model`` and ``tta_pipeline``
            stay. It is changed.

    Raises:
        UserError: It has no test pipeline.
    """
    _add_scales_and_flips(cfg, lambda step: step)


def add_clip_views(cfg: Config) -> None:
    """Give a config six scales and a flip, the same for all frames of a clip.

    Args:
        cfg: Config of a segmentor for clips, as for
            :func:`add_picture_views`.

    Raises:
        UserError: It has no test pipeline.
    """
    _add_scales_and_flips(
        cfg, lambda step: dict(type=CLIP_TRANSFORM, transforms=[step])
    )


def _add_scales_and_flips(cfg: Config, wrap: Callable[[dict], dict]) -> None:
    if not cfg.get('tta_model'):
        cfg.tta_model = ConfigDict(type='SegTTAModel')
    if not cfg.get('tta_pipeline'):
        head, resize, tail = _around_resize(cfg)
        sizes = [wrap(_scaled(resize, ratio)) for ratio in SCALES]
        flips = [wrap(flip) for flip in _flips(direction='horizontal')]
        steps = [sizes, flips, *([step] for step in tail)]
        cfg.tta_pipeline = [*head, dict(type='TestTimeAug', transforms=steps)]


def add_detection_views(cfg: Config) -> None:
    """Give a config a picture and its mirror image, to merge the boxes of.

    Args:
        cfg: Config of a detector, as for :func:`add_picture_views`.

    Raises:
        UserError: It has no test pipeline, or predicts masks.
    """
    parts = (cfg.model, cfg.model.get('roi_head') or {})
    if any(part.get('mask_head') for part in parts):
        raise UserError(
            "--tta: MMDetection's test-time augmentation merges boxes, and "
            'has nothing for the masks of this model: leave it out.'
        )
    if not cfg.get('tta_model'):
        nms = dict(type='nms', iou_threshold=0.5)
        merged = dict(nms=nms, max_per_img=100)
        cfg.tta_model = ConfigDict(type='DetTTAModel', tta_cfg=merged)
    if not cfg.get('tta_pipeline'):
        # Boxes are merged by score, so that one scale is the usual choice.
        head, resize, (*tail, pack) = _around_resize(cfg)
        keys = pack.get(
            'meta_keys',
            ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
        )
        pack = {**pack, 'meta_keys': (*keys, 'flip', 'flip_direction')}
        steps = [[resize], _flips(), *([step] for step in tail), [pack]]
        cfg.tta_pipeline = [*head, dict(type='TestTimeAug', transforms=steps)]


def refuse_views(cfg: Config) -> None:
    """Say why stereo networks have no test-time augmentation.

    Args:
        cfg: Not used.

    Raises:
        UserError: Always.
    """
    raise UserError(
        '--tta: a stereo network has no test-time augmentation: mirrored, '
        'left and right change places, and a smaller pair has smaller '
        'disparities than it was trained on. Leave it out.'
    )


def _flips(**options: str) -> list[dict]:
    return [dict(type='RandomFlip', prob=p, **options) for p in (0.0, 1.0)]


def _around_resize(cfg: Config) -> tuple[list, ConfigDict, list]:
    """Steps of the test pipeline before Resize, itself, and behind it.

    Without one the picture is resized from its own size, once it is loaded.
    """
    pipeline = [s for step in test_pipeline(cfg) for s in _one_by_one(step)]
    for place, step in enumerate(pipeline):
        step = _of_pictures(step)
        if step['type'].split('.')[-1] == 'Resize':
            return pipeline[:place], step, pipeline[place + 1 :]
    resize = ConfigDict(type='Resize', scale_factor=1.0, keep_ratio=True)
    return pipeline[:1], resize, pipeline[1:]


def _one_by_one(step: ConfigDict) -> list[ConfigDict]:
    """A transform of clips for each transform of pictures within."""
    if step['type'] != CLIP_TRANSFORM:
        return [step]
    return [
        ConfigDict(step, transforms=[inner]) for inner in step['transforms']
    ]


def _of_pictures(step: ConfigDict) -> ConfigDict:
    return step['transforms'][0] if step['type'] == CLIP_TRANSFORM else step


def _scaled(resize: ConfigDict, ratio: float) -> ConfigDict:
    resize = copy.deepcopy(resize)
    if resize.get('scale') is not None:
        scale = resize['scale']
        sides = [scale] * 2 if isinstance(scale, int) else scale
        resize['scale'] = tuple(round(side * ratio) for side in sides)
    else:
        factor = resize.get('scale_factor', 1.0)
        sides = [factor] * 2 if isinstance(factor, (int, float)) else factor
        resize['scale_factor'] = tuple(side * ratio for side in sides)
    return resize
