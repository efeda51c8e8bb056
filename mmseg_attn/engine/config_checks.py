# Copyright (c) mmseg_attn contributors.
"""Find what is misspelt or out of range in a config before any time is spent.

mmengine builds hooks, evaluators and loops late, and some take every argument
and use it later still: a misspelt one costs the whole training.
"""

import inspect
import logging
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mmengine import registry
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import Registry
from mmengine.runner import Runner

from ..errors import UserError, near
from .arguments import arguments_of
from .config_errors import check_weight_files, not_provided, unknown_types
from .data_checks import LOADERS, decode_head
from .safe_checkpoint import SafeCheckpointHook

# What stands at a key of the config, or in a list there.
KINDS = {
    'default_hooks': registry.HOOKS,
    'custom_hooks': registry.HOOKS,
    'train_evaluator': registry.METRICS,
    'val_evaluator': registry.METRICS,
    'test_evaluator': registry.METRICS,
    'metrics': registry.METRICS,
    'param_scheduler': registry.PARAM_SCHEDULERS,
    'train_cfg': registry.LOOPS,
    'val_cfg': registry.LOOPS,
    'test_cfg': registry.LOOPS,
    'visualizer': registry.VISUALIZERS,
    'vis_backends': registry.VISBACKENDS,
    'log_processor': registry.LOG_PROCESSORS,
    'optim_wrapper': registry.OPTIM_WRAPPERS,
    'optimizer': registry.OPTIMIZERS,
    'dataset': registry.DATASETS,
    'datasets': registry.DATASETS,
    'sampler': registry.DATA_SAMPLERS,
    'batch_sampler': registry.DATA_SAMPLERS,
    'pipeline': registry.TRANSFORMS,
    'transforms': registry.TRANSFORMS,
}
# Parts of layers that mmcv builds.
PARTS = ('norm_cfg', 'act_cfg', 'conv_cfg')
# What mmengine takes out of a config before it builds.
TAKEN = {
    *('type', '_scope_', '_delete_'),
    *('priority', 'convert_to_iter_based', 'by_epoch'),
    *('optimizer', 'constructor', 'paramwise_cfg'),
}
# Top-level keys that are read, beside the arguments of Runner.
READ = {
    *('find_unused_parameters', 'model_wrapper_cfg', 'sync_bn', 'compile'),
    *('activation_checkpointing', 'efficient_conv_bn_eval', 'runner_type'),
    *('tta_model', 'tta_pipeline', 'work_dir', 'strategy'),
}
# What each launcher sets for the processes that it starts.
VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
}
STARTERS = {
    'pytorch': 'torchrun or tools/dist_train.sh',
    'slurm': 'srun or tools/slurm_train.sh',
    'mpi': 'mpirun',
}
# How alike a key must be to one that is read to be taken for it: a config may
# have variables of any name.
ALIKE = 0.9
# The hosts' label of pixels that count for nothing.
IGNORED = 255
SCOPES = ('mmengine', 'mmseg', 'mmdet', 'mmseg_attn')
IOU_METRICS = ('mIoU', 'mDice', 'mFscore')


def check_config(cfg: Config, train: bool) -> None:
    """Refuse a config with misspelt names or values that cannot be meant.

    Args:
        cfg: The config.
        train: Whether it is to train; else what only training needs is
            passed over.

    Raises:
        UserError: It says which entry, where it is in the file, and what is
            expected.
    """
    check_launcher(cfg)
    _check_top(cfg)
    _check_shapes(cfg)
    _check_model(cfg, cfg.model)
    check_weight_files(cfg.model)
    kinds = ('train', 'val') if train else ('test',)
    keys = [
        f'{kind}_{part}'
        for kind in kinds
        for part in ('dataloader', 'cfg', 'evaluator')
    ]
    for kind in kinds:
        _check_complete(cfg, kind)
    keys += ['default_hooks', 'custom_hooks', 'visualizer', 'log_processor']
    if train:
        keys += ['param_scheduler', 'optim_wrapper']
    for key in keys:
        for name, entry, kind in _entries(key, cfg.get(key), key):
            _check_entry(cfg, name, entry, kind)
    _check_ignored(cfg, kinds)


def check_launcher(cfg: Config) -> None:
    """Refuse a launcher that did not start this process.

    Args:
        cfg: With ``launcher``.

    Raises:
        UserError: A variable that it sets is missing.
    """
    launcher = cfg.get('launcher', 'none')
    missing = [v for v in VARIABLES.get(launcher, ()) if v not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher}: the variable {missing[0]} is not set, so '
            f'that {launcher} did not start this process. Start it with '
            f'{STARTERS[launcher]}, or leave --launcher out.'
        )


def place_of(cfg: Config, name: str) -> str:
    """Find where a config's own file has a name.

    Args:
        cfg: The config.
        name: Name of a key, perhaps with those above it before dots.

    Returns:
        Such as ``' (line 3 of a.py)'``; empty where it is in a base.
    """
    word = re.compile(rf'\b{re.escape(name.rpartition(".")[2])}\b')
    path = Path(cfg.filename or '')
    if path.is_file():
        text = path.read_text(encoding='utf-8', errors='replace')
        for number, line in enumerate(text.splitlines(), start=1):
            if word.search(line.partition('#')[0]):
                return f' (line {number} of {path})'
    return ''


def _check_top(cfg: Config) -> None:
    known = {*inspect.signature(Runner.__init__).parameters, *READ} - {'self'}
    for key in cfg:
        meant = near(key, known, ALIKE)
        if key not in known and meant:
            raise UserError(
                f'the config has {key}{place_of(cfg, key)}, which nothing '
                f'reads.{meant}'
            )


def _check_shapes(cfg: Config) -> None:
    scope = cfg.get('default_scope')
    if scope and not find_spec(scope):
        raise UserError(
            f'default_scope{place_of(cfg, "default_scope")} is {scope!r}, and '
            f'no such package is installed.{near(scope, SCOPES)}'
        )
    if cfg.get('log_level', 'INFO') not in logging.getLevelNamesMapping():
        raise UserError(
            f'log_level{place_of(cfg, "log_level")} is {cfg.log_level!r}, '
            'expected DEBUG, INFO, WARNING or ERROR.'
        )
    if not cfg.get('model'):
        raise UserError(
            f'{cfg.filename} has no `model`: expected the config of a '
            'segmentor, a detector or another model.'
        )
    for key in ('model', *LOADERS, *KINDS):
        value = cfg.get(key)
        if key == 'default_hooks' and isinstance(value, dict):
            found = {f'{key}.{name}': hook for name, hook in value.items()}
        elif isinstance(value, (list, tuple)) and key in KINDS:
            found = {f'{key}[{i}]': item for i, item in enumerate(value)}
        else:
            found = {key: value}
        for name, item in found.items():
            if not (item is None or isinstance(item, dict)):
                raise UserError(
                    f'{name}{place_of(cfg, key)} is {item!r}, expected a '
                    "dict, such as dict(type='...')."
                )


def _check_model(cfg: Config, value: object) -> None:
    """Refuse unknown norms and the like, of which mmcv says "find None"."""
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_model(cfg, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            part = item if key in PARTS and isinstance(item, dict) else {}
            kind = part.get('type')
            named = isinstance(kind, str)
            if named and _lookup(cfg, kind, registry.MODELS) is None:
                raise _unknown(cfg, kind, registry.MODELS)
            _check_model(cfg, item)


def _check_complete(cfg: Config, kind: str) -> None:
    """mmengine wants all parts of a loop, or none."""
    parts = [f'{kind}_dataloader', f'{kind}_cfg']
    parts.append('optim_wrapper' if kind == 'train' else f'{kind}_evaluator')
    missing = [name for name in parts if cfg.get(name) is None]
    if 0 < len(missing) < len(parts):
        there = [name for name in parts if name not in missing]
        raise UserError(
            f'the config has {" and ".join(there)}, but no '
            f'{" and no ".join(missing)}: expected all of them or none.'
        )
    if kind != 'val' and missing:
        raise UserError(
            f'the config has no {", no ".join(missing)}, which a '
            f'{"training" if kind == "train" else "test"} needs.'
        )


def _entries(
    name: str, value: object, key: str
) -> Iterator[tuple[str, dict, Registry]]:
    """Go through what is built: its name in the config, itself, its kind."""
    if isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _entries(f'{name}[{number}]', item, key)
    elif isinstance(value, dict):
        if key in KINDS and ('type' in value or key.endswith('_cfg')):
            yield name, value, KINDS[key]
        for inner, item in value.items():
            # default_hooks has names of its own between it and its hooks.
            below = key if key == 'default_hooks' else inner
            foreign = str(value.get('type')).endswith('Albu')
            if below in KINDS and not foreign:
                yield from _entries(f'{name}.{inner}', item, below)


def _check_entry(
    cfg: Config, name: str, entry: dict, registry_: Registry
) -> None:
    kind = _class_of(cfg, entry, registry_)
    if kind is None:
        return
    given = set(entry) - TAKEN
    allowed = arguments_of(kind, entry)
    for argument in given if allowed is not None else ():
        if argument not in allowed:
            raise UserError(
                f'{name}{place_of(cfg, argument)}: {kind.__name__} has no '
                f'argument {argument!r}.'
                + (near(argument, allowed) or _list(allowed))
            )
    _check_values(cfg, name, entry, kind)


def _check_values(cfg: Config, name: str, entry: dict, kind: type) -> None:
    least = ('max_iters', 'max_epochs', 'val_interval')
    for key, value in entry.items():
        number = isinstance(value, (int, float))
        if key in least and not (isinstance(value, int) and value >= 1):
            expected = 'a whole number of at least 1'
        elif key == 'interval' and number and (value == 0 or value < -1):
            expected = 'at least 1, or -1 for never'
        elif key == 'metainfo' and _is_text(value):
            key, value = 'metainfo.classes', value['classes']
            expected = f'a tuple of names, such as ({value!r},)'
        elif key == 'iou_metrics' and not _are_iou_metrics(value):
            expected = f'a list of {", ".join(IOU_METRICS)}'
        else:
            continue
        raise UserError(
            f'{name}.{key}{place_of(cfg, key)} is {value!r}, expected '
            f'{expected}.'
        )


def _check_ignored(cfg: Config, kinds: tuple[str, ...]) -> None:
    """Refuse a segmentor whose parts do not ignore the same label."""
    head = decode_head(cfg)
    if not head:
        return
    expected = head.get('ignore_index', IGNORED)
    found = {}
    for kind in kinds:
        name = f'{kind}_evaluator'
        for place, entry, registry_ in _entries(name, cfg.get(name), name):
            metric = _class_of(cfg, entry, registry_)
            if metric and 'ignore_index' in (arguments_of(metric) or ()):
                key = f'{place}.ignore_index'
                found[key] = entry.get('ignore_index', IGNORED)
    # The masks of a test keep their size.
    if 'train' in kinds and cfg.model.get('data_preprocessor'):
        padding = cfg.model.data_preprocessor.get('seg_pad_val', IGNORED)
        found['model.data_preprocessor.seg_pad_val'] = padding
    for key, value in found.items():
        if value != expected:
            raise UserError(
                f'model.decode_head.ignore_index is {expected}, but {key} is '
                f'{value}: pixels that one part ignores would count in the '
                f'other. Set {key}={expected}'
            )


def _is_text(metainfo: object) -> bool:
    """Whether classes are one text, which is no file of names either."""
    classes = isinstance(metainfo, dict) and metainfo.get('classes')
    return isinstance(classes, str) and not Path(classes).is_file()


def _are_iou_metrics(value: object) -> bool:
    return isinstance(value, (list, tuple)) and set(value) <= set(IOU_METRICS)


def _class_of(cfg: Config, entry: dict, registry_: Registry) -> type | None:
    name = entry.get('type')
    if name is None:  # a loop that is told by what it counts
        counted = {'max_epochs', 'max_iters'} & set(entry)
        if registry_ is not registry.LOOPS or not counted:
            return None
        epochs = entry.get('by_epoch', 'max_epochs' in entry)
        name = 'EpochBasedTrainLoop' if epochs else 'IterBasedTrainLoop'
    if isinstance(name, type):
        return name
    kind = _lookup(cfg, str(name), registry_)
    if kind is None and registry_ is registry.METRICS:  # of several metrics
        kind = _lookup(cfg, str(name), registry.EVALUATOR)
    if kind is None:
        raise _unknown(cfg, str(name), registry_)
    if kind is CheckpointHook:  # adapt() puts ours in its place
        kind = SafeCheckpointHook
    return kind if isinstance(kind, type) else None


def _lookup(cfg: Config, name: str, registry_: Registry) -> object:
    """What is registered of a name, as building would look for it."""
    scope = cfg.get('default_scope')
    with registry_.switch_scope_and_registry(scope) as found, unknown_types():
        return found.get(name)


def _unknown(cfg: Config, name: str, registry_: Registry) -> UserError:
    scope = cfg.get('default_scope')
    names = {
        (f'{child}.' if child != scope else '') + one
        for child, of in [*registry_.children.items(), (scope, registry_)]
        for one in of.module_dict
    }
    return not_provided(name, names, place_of(cfg, name))


def _list(names: set[str]) -> str:
    shown = sorted(names - {'self', 'args', 'kwargs'})
    return f' It has {", ".join(shown)}.'
