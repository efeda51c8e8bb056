# Copyright (c) mmseg_attn contributors.
"""Find what is misspelt or out of range in a config before any time is spent.

mmengine builds hooks, evaluators and loops late, and some take every argument
and use it later still: a misspelt one costs the whole training.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from mmengine import registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner

from ..errors import UserError, near

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
    'dataset': registry.DATASETS,
    'datasets': registry.DATASETS,
    'sampler': registry.DATA_SAMPLERS,
    'batch_sampler': registry.DATA_SAMPLERS,
    'pipeline': registry.TRANSFORMS,
    'transforms': registry.TRANSFORMS,
}
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
# How alike a key must be to one that is read to be taken for it: a config may
# have variables of any name.
ALIKE = 0.9
# The hosts' label of pixels that count for nothing.
IGNORED = 255
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
    _check_top(cfg)
    kinds = ('train', 'val') if train else ('test',)
    keys = [
        f'{kind}_{part}'
        for kind in kinds
        for part in ('dataloader', 'cfg', 'evaluator')
    ]
    keys += ['default_hooks', 'custom_hooks', 'visualizer', 'log_processor']
    if train:
        keys += ['param_scheduler', 'optim_wrapper']
    for key in keys:
        for name, entry, kind in _entries(key, cfg.get(key), key):
            _check_entry(cfg, name, entry, kind)
    _check_ignored(cfg, kinds)


def place_of(cfg: Config, name: str) -> str:
    """Find where a config's own file has a name.

    Args:
        cfg: The config.
        name: Of a key, perhaps with those above it before dots.

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
            if below in KINDS:
                yield from _entries(f'{name}.{inner}', item, below)


def _check_entry(
    cfg: Config, name: str, entry: dict, registry_: Registry
) -> None:
    kind = _class_of(cfg, entry, registry_)
    if kind is None:
        return  # building it says so
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
    least = dict.fromkeys(('max_iters', 'max_epochs', 'val_interval'), 1)
    for key, value in entry.items():
        number = isinstance(value, (int, float))
        if key in least and number and value < least[key]:
            expected = 'at least 1'
        elif key == 'interval' and number and (value == 0 or value < -1):
            expected = 'at least 1, or -1 for never'
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
    model = cfg.get('model') or {}
    heads = model.get('decode_head')
    if cfg.get('default_scope') != 'mmseg' or not heads:
        return
    head = heads[-1] if isinstance(heads, (list, tuple)) else heads
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
    if 'train' in kinds and model.get('data_preprocessor'):
        padding = model['data_preprocessor'].get('seg_pad_val', IGNORED)
        found['model.data_preprocessor.seg_pad_val'] = padding
    for key, value in found.items():
        if value != expected:
            raise UserError(
                f'model.decode_head.ignore_index is {expected}, but {key} is '
                f'{value}: pixels that one part ignores would count in the '
                f'other. Set {key}={expected}'
            )


def _are_iou_metrics(value: object) -> bool:
    return isinstance(value, (list, tuple)) and set(value) <= set(IOU_METRICS)


def _class_of(cfg: Config, entry: dict, registry_: Registry) -> type | None:
    name = entry.get('type')
    if name is None:  # a loop that is told by what it counts
        loops = {registry.LOOPS: ''}
        if registry_ not in loops or not entry:
            return None
        epochs = entry.get('by_epoch', 'max_epochs' in entry)
        if not {'max_epochs', 'max_iters'} & set(entry):
            return None
        name = 'EpochBasedTrainLoop' if epochs else 'IterBasedTrainLoop'
    if isinstance(name, type):
        return name
    scope = cfg.get('default_scope')
    with registry_.switch_scope_and_registry(scope) as found:
        kind = found.get(str(name))
    return kind if isinstance(kind, type) else None


def arguments_of(kind: type, entry: dict | None = None) -> set[str] | None:
    """Find the names of a class' arguments, those of its parents included.

    Args:
        kind: The class.
        entry: Its config, for classes that build another with what they do
            not take themselves.

    Returns:
        The names, or None if the class may take any.
    """
    names = set()
    for parent in kind.__mro__:
        init = parent.__dict__.get('__init__')
        if init is None or parent is object:
            continue
        parameters = inspect.signature(init).parameters.values()
        names |= {p.name for p in parameters}
        rest = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        if not rest:
            return names
        use = _use_of(init, rest[0])
        if use == 'saved':  # mmengine's hook hands them on when it saves
            more = inspect.signature(Runner.save_checkpoint).parameters
            return names | set(more)
        if use == 'resize':
            built = _resize(entry or {})
            more = arguments_of(built) if built else None
            return None if more is None else names | more
        if use == 'any':
            return None
    return names


def _use_of(init: object, rest: str) -> str:
    """What becomes of the arguments that have no name of their own."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, TypeError, SyntaxError):
        return 'any'
    if rest == 'resize_kwargs':
        return 'resize'
    uses = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == rest
    ]
    handed = [
        keyword.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).startswith('super()')
        for keyword in node.keywords
        if keyword.arg is None
    ]
    if all(use in handed for use in uses):
        return 'parents'  # or nobody's, if there are none
    if re.search(rf'self\.args = {rest}\b', ast.unparse(tree)):
        return 'saved'
    return 'any'


def _resize(entry: dict) -> type | None:
    name = entry.get('resize_type', 'Resize')
    return registry.TRANSFORMS.get(name)


def _list(names: set[str]) -> str:
    shown = sorted(names - {'self', 'args', 'kwargs'})
    return f' It has {", ".join(shown)}.'
