# Copyright (c) mmseg_attn contributors.
"""Registries of the scope ``mmseg_attn``.

They are children of mmengine's root registries, so that MMSegmentation,
MMDetection and any other OpenMMLab package find ``mmseg_attn.X`` in a config
without ``custom_imports``: mmengine imports this module for the scope, and
``locations`` for the classes. Keep it light, because mmengine hides import
errors of this module and reports "X is not in the registry" instead.
"""

from mmengine.registry import DATA_SAMPLERS as ROOT_DATA_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import TASK_UTILS as ROOT_TASK_UTILS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import VISUALIZERS as ROOT_VISUALIZERS
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=ROOT_MODELS,
    scope='mmseg_attn',
    locations=['mmseg_attn.models'],
)
DATASETS = Registry(
    'dataset',
    parent=ROOT_DATASETS,
    scope='mmseg_attn',
    locations=['mmseg_attn.datasets'],
)
TRANSFORMS = Registry(
    'transform',
    parent=ROOT_TRANSFORMS,
    scope='mmseg_attn',
    locations=['mmseg_attn.datasets'],
)
METRICS = Registry(
    'metric',
    parent=ROOT_METRICS,
    scope='mmseg_attn',
    locations=['mmseg_attn.evaluation'],
)
HOOKS = Registry(
    'hook',
    parent=ROOT_HOOKS,
    scope='mmseg_attn',
    locations=['mmseg_attn.engine'],
)
TASK_UTILS = Registry(
    'task util',
    parent=ROOT_TASK_UTILS,
    scope='mmseg_attn',
    locations=['mmseg_attn.models'],
)
DATA_SAMPLERS = Registry(
    'data sampler',
    parent=ROOT_DATA_SAMPLERS,
    scope='mmseg_attn',
    locations=['mmseg_attn.engine'],
)
OPTIM_WRAPPERS = Registry(
    'optim_wrapper',
    parent=ROOT_OPTIM_WRAPPERS,
    scope='mmseg_attn',
    locations=['mmseg_attn.engine'],
)
VISUALIZERS = Registry(
    'visualizer',
    parent=ROOT_VISUALIZERS,
    scope='mmseg_attn',
    locations=['mmseg_attn.visualization.disparity_visualizer'],
)
