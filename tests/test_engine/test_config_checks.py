# Copyright (c) mmseg_attn contributors.
"""Misspelt names and values that cannot be meant, before any time is spent."""

import inspect
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.registry import HOOKS, METRICS, init_default_scope
from mmseg.evaluation import IoUMetric

from mmseg_attn.configs import find_config, list_configs
from mmseg_attn.engine.arguments import arguments_of
from mmseg_attn.engine.check_setup import check_groups
from mmseg_attn.engine.config_checks import (
    KINDS,
    VARIABLES,
    check_config,
    place_of,
)
from mmseg_attn.errors import UserError

DEMO = 'ccnet-r2_r18-s4_1xb8-1k_demo-scenes-96x96'


@pytest.fixture
def cfg():
    cfg = Config.fromfile(find_config(DEMO))
    init_default_scope(cfg.default_scope)
    return cfg


WRONG = [
    (
        {'default_hooks.checkpoint.max_keep_ckpt': 3},
        r'default_hooks\.checkpoint: \w*CheckpointHook has no argument '
        r"'max_keep_ckpt'\. Did you mean max_keep_ckpts",
    ),
    (
        {'default_hooks.checkpoint.interval': 0},
        r'default_hooks\.checkpoint\.interval is 0, expected at least 1',
    ),
    ({'default_hooks.logger.intervall': 5}, 'Did you mean interval'),
    ({'default_hooks.logger.interval': 0}, 'is 0, expected at least 1'),
    (
        {'custom_hooks': [{'type': 'EarlyStoppingHook', 'monitr': 'mIoU'}]},
        r'custom_hooks\[0\]: EarlyStoppingHook .* Did you mean monitor',
    ),
    ({'val_evaluator.iou_metric': ['mIoU']}, 'Did you mean iou_metrics'),
    (
        {'val_evaluator.iou_metrics': ['mIou']},
        r"iou_metrics is \['mIou'\], expected a list of mIoU, mDice",
    ),
    ({'val_evaluator.iou_metrics': 'mIoU'}, 'expected a list of mIoU'),
    ({'val_evaluator.beta_': 2}, r'no argument .beta_.*Did you mean beta'),
    ({'param_scheduler': [{'type': 'PolyLR', 'powr': 1}]}, 'mean power'),
    ({'train_cfg.max_iter': 10}, 'Did you mean max_iters'),
    ({'train_cfg.max_iters': 0}, r'train_cfg\.max_iters is 0'),
    ({'train_cfg.max_iters': -5}, 'is -5, expected a whole number'),
    ({'train_cfg.val_interval': 0}, 'val_interval is 0'),
    ({'visualizer.alfa': 1}, r'visualizer: .* Did you mean alpha'),
    ({'optim_wrapper.clip_gradd': {}}, 'Did you mean clip_grad'),
    (
        {'train_dataloader.sampler.shufle': True},
        r'train_dataloader\.sampler: \w+ .* Did you mean shuffle',
    ),
    (
        {'train_dataloader.dataset.img_sufix': '.jpg'},
        r'train_dataloader\.dataset: \w+ .* Did you mean img_suffix',
    ),
    (
        {
            'train_dataloader.dataset.pipeline': [
                {'type': 'LoadImageFromFile'},
                {'type': 'RandomFlip', 'probb': 0.5},
            ]
        },
        r'pipeline\[1\]: RandomFlip has .* Did you mean prob',
    ),
    (
        {
            'val_dataloader.dataset.pipeline': [
                {'type': 'RandomResize', 'scale': 1, 'kep_ratio': True}
            ]
        },
        'Did you mean keep_ratio',
    ),
    (
        {'model.decode_head.ignore_index': 0},
        r'decode_head\.ignore_index is 0, but val_evaluator\.ignore_index is '
        r'255: .* Set val_evaluator\.ignore_index=0',
    ),
    (
        {
            'model.decode_head.ignore_index': 7,
            'val_evaluator.ignore_index': 7,
        },
        r'data_preprocessor\.seg_pad_val is 255: .*seg_pad_val=7',
    ),
    ({'val_evaluator.ignore_index': 3}, r'is 255, but val_evaluator\.ig'),
    ({'model': [1]}, r'model .*is \[1\], expected a dict, such'),
    ({'model': None}, 'has no `model`'),
    ({'custom_hooks': ['EMAHook']}, r"custom_hooks\[0\] is 'EMAHook', exp"),
    ({'default_hooks.logger': 'x'}, r"logger is 'x', expected"),
    (
        {'param_scheduler': 'poly'},
        "is 'poly', expected a dict",
    ),
    ({'log_level': 'LOUD'}, 'expected DEBUG, INFO, WARNING or ERROR'),
    ({'default_scope': 'mmsegg'}, 'no such package.* Did you mean mmseg'),
    ({'train_cfg': None}, 'but no train_cfg: expected all of them or none'),
    ({'val_evaluator': None}, 'but no val_evaluator'),
    (
        {
            'train_dataloader': None,
            'train_cfg': None,
            'optim_wrapper': None,
        },
        'no optim_wrapper, which a training needs',
    ),
    ({'train_cfg.max_iters': 'many'}, "is 'many', expected a whole number"),
    ({'train_cfg.max_iters': 2.5}, 'is 2.5, expected a whole number'),
    (
        {'train_dataloader.dataset.metainfo': {'classes': 'ab'}},
        r"metainfo\.classes is 'ab', expected a tuple of names",
    ),
    (
        {'optim_wrapper.optimizer.type': 'AdmW'},
        "type='AdmW', which nothing provides. Did you mean AdamW",
    ),
    ({'optim_wrapper.optimizer.momentm': 1}, 'AdamW has no argument'),
    ({'train_cfg.type': 'IterLoop'}, "type='IterLoop', which nothing"),
    ({'val_evaluator.type': 'IoUMetrc'}, 'Did you mean IoUMetric'),
    (
        {'model.decode_head.norm_cfg': {'type': 'BNN'}},
        "type='BNN', which nothing provides",
    ),
    ({'train_dataloder': {}}, 'nothing reads. Did you mean train_dataloader'),
    ({'optim_wraper': {}}, 'Did you mean optim_wrapper'),
    ({'default_hook': {}}, 'Did you mean default_hooks'),
]


@pytest.mark.parametrize('options, message', WRONG)
def test_what_is_misspelt_or_out_of_range(cfg, options, message):
    check_config(cfg, train=True)
    cfg.merge_from_dict(options)
    with pytest.raises(UserError, match=message) as caught:
        check_config(cfg, train=True)
    assert '\n' not in str(caught.value)


def test_a_test_is_not_stopped_by_what_training_needs(cfg):
    cfg.merge_from_dict({'train_cfg.max_iters': 0})
    check_config(cfg, train=False)
    cfg.merge_from_dict({'train_cfg.max_iters': 9})
    cfg.merge_from_dict({'test_evaluator.iou_metrics': ['no']})
    check_config(cfg, train=True)
    with pytest.raises(UserError, match='test_evaluator'):
        check_config(cfg, train=False)


def test_the_place_in_the_file_is_named(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(
        f'_base_ = {find_config(DEMO)!r}\n# max_keep_ckpt: how many\n'
        'default_hooks = dict(\n    checkpoint=dict(max_keep_ckpt=3),\n)\n'
    )
    cfg = Config.fromfile(path)
    init_default_scope('mmseg')
    assert place_of(cfg, 'max_keep_ckpt') == f' (line 4 of {path})'
    assert place_of(cfg, 'checkpoint.max_keep') == ''
    with pytest.raises(UserError, match=r'\(line 4 of .*own\.py\)'):
        check_config(cfg, train=True)


def test_what_is_right_passes(cfg):
    cfg.merge_from_dict(
        {
            'default_hooks.checkpoint.save_best': 'mIoU',
            'default_hooks.checkpoint.interval': -1,
            'default_hooks.checkpoint.meta': None,
            'default_hooks.checkpoint.stop_on_nonfinite': False,
            'default_hooks.logger.log_metric_by_epoch': False,
            'custom_hooks': [{'type': 'EMAHook', 'momentum': 1e-3}],
            'optim_wrapper.accumulative_counts': 2,
            'my_own_variable': 3,
            'model.decode_head.ignore_index': 254,
            'val_evaluator.ignore_index': 254,
            'model.data_preprocessor.seg_pad_val': 254,
            'train_pipeline_of_mine': [],
        }
    )
    check_config(cfg, train=True)


def test_every_packaged_config_passes():
    """One of each folder and one of each benchmark: the others are alike."""
    seen = {}
    for path in list_configs():
        seen[path.parent.name] = seen[path.stem.rpartition('_')[2]] = path
    for path in dict.fromkeys(seen.values()):
        try:
            cfg = Config.fromfile(path)
        except ModuleNotFoundError as error:
            assert error.name == 'mmdet'
            continue
        if cfg.default_scope == 'mmdet':
            continue  # its classes need compiled operators
        init_default_scope(cfg.default_scope)
        for train in (True, False):
            check_config(cfg, train)


def test_arguments_of_a_class_and_its_parents():
    class Parent:
        def __init__(self, a, *, b=1):
            pass

    class Handed(Parent):
        def __init__(self, c, **rest):
            super().__init__(**rest)

    class Swallowed(Parent):
        def __init__(self, d, **rest):
            super().__init__(d)

    class Used(Parent):
        def __init__(self, e, **rest):
            self.built = dict(rest)

    assert arguments_of(Handed) - {'self', 'rest'} == {'a', 'b', 'c'}
    assert arguments_of(Swallowed) - {'self', 'rest'} == {'a', 'b', 'd'}
    assert arguments_of(Used) is None
    own = set(inspect.signature(CheckpointHook).parameters)
    assert own < arguments_of(CheckpointHook)
    assert arguments_of(LoggerHook) is not None
    assert 'prefix' in arguments_of(IoUMetric)


def test_the_kinds_are_those_of_the_registries():
    assert KINDS['custom_hooks'] is HOOKS
    assert KINDS['val_evaluator'] is METRICS


def test_groups_name_classes():
    dataset = SimpleNamespace(
        metainfo=dict(classes=('sky', 'road'), groups={'far': ['sky']})
    )
    check_groups(dataset)
    dataset.metainfo['groups']['near'] = ['raod']
    with pytest.raises(UserError, match="'raod'.* Did you mean road"):
        check_groups(dataset)


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_a_launcher_that_started_nothing(cfg, launcher, monkeypatch):
    for name in (name for names in VARIABLES.values() for name in names):
        monkeypatch.delenv(name, raising=False)
    cfg.launcher = launcher
    with pytest.raises(UserError, match=f'--launcher {launcher}: the variab'):
        check_config(cfg, train=True)
    for name in VARIABLES[launcher]:
        monkeypatch.setenv(name, '1')
    check_config(cfg, train=True)
