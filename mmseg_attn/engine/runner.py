# Copyright (c) mmseg_attn contributors.
"""Build mmengine's Runner with what keeps a training safe."""

import copy
import datetime
import difflib
import filecmp
import gc
import os
import re
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import (
    DATASETS,
    MODELS,
    RUNNERS,
    TRANSFORMS,
    init_default_scope,
)
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from ..datasets.coco import CocoReport, check_coco
from ..errors import UserError
from ..hosts import missing_for
from .checkpoint import (
    allow_openmmlab_types,
    find_latest,
    load_checkpoint,
    match_weights,
)
from .samples import NamedItems

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def build_runner(cfg: Config, train: bool = True) -> Runner:
    """Build a Runner that checks its inputs and never loses a checkpoint.

    It works for any config of MMSegmentation or MMDetection and puts in:
    checks of labels, folders, class numbers and channels; checkpoints that
    are written whole and removed only after their successor is there; exact
    resuming; and what a machine without a GPU needs.

    Args:
        cfg (Config): The config, which is not changed. ``cfg.resume`` may
            also be a checkpoint's path, or 'auto' for the newest one in the
            work folder (a fresh start where there is none).
        train (bool): Whether it is to train. Otherwise ``cfg.load_from``
            must fit the model fully. Defaults to True.

    Returns:
        Runner: Ready for ``train()`` or ``test()``.

    Raises:
        UserError: The config, the data or the checkpoint cannot be used.
    """
    cfg = copy.deepcopy(cfg)
    check_installed(cfg)
    if not cfg.get('work_dir'):
        name = Path(cfg.filename).stem if cfg.filename else 'run'
        cfg.work_dir = os.path.join('work_dirs', name)
    loaders = ('train_dataloader', 'val_dataloader')
    notes = []
    for loader in loaders if train else ('test_dataloader',):
        check_paths(cfg, loader)
        reports = check_instances(cfg, loader)
        for path, report in reports.items():
            notes += [f'{path}: {line}.' for line in report.warnings()]
        if len(reports) == 1 and loader != 'train_dataloader':
            _check_evaluators(cfg, loader, *reports)
    _add_checks(cfg)
    if train:
        _make_resumable(cfg)
    if get_device() == 'cpu':
        notes += _adapt_to_cpu(cfg)
    notes += _choose_checkpoint(cfg)
    if train and not cfg.resume:
        _check_unused(cfg.work_dir)
    # mmengine 0.10.7 cannot load what mmengine writes without this.
    allow_openmmlab_types()
    checkpoint = load_checkpoint(cfg.load_from) if cfg.load_from else None
    if cfg.resume:
        _check_resumable(cfg, checkpoint)
    runner = _build(cfg)
    for note in notes:
        runner.logger.warning(note)
    if checkpoint is not None:
        strict = bool(cfg.resume) or not train
        match_weights(runner.model, checkpoint, cfg.load_from, strict)
    return runner


def end_processes() -> None:
    """Part from the other processes, if there are any.

    Call it when no name holds the runner: the threads that speak to the other
    processes live as long as its model, and one that outlives the interpreter
    aborts the process.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


def check_installed(cfg: Config) -> None:
    """Refuse a config whose host is not there, or not whole.

    Args:
        cfg: The config.

    Raises:
        UserError: It says what to install.
    """
    problem = missing_for(cfg.get('default_scope'))
    if problem:
        raise UserError(problem)


class _Runner(Runner):
    """mmengine's Runner, with words for mistakes in the config."""

    def build_model(self, model: object) -> nn.Module:
        with model_mistakes():
            return super().build_model(model)

    def dump_config(self) -> None:
        source = self.cfg.filename
        if source and os.path.exists(source):
            target = os.path.join(self.work_dir, os.path.basename(source))
            # A config that the user keeps in the work folder stays as it is.
            if os.path.exists(target) and os.path.samefile(source, target):
                return
        super().dump_config()

    @staticmethod
    def build_dataloader(dataloader: object, **kwargs) -> DataLoader:
        try:
            with _names_near():
                loader = Runner.build_dataloader(dataloader, **kwargs)
            empty = not len(loader.dataset)
        except ValueError as error:
            # From serialising no sample at all.
            if 'need at least one array' not in str(error):
                raise
            empty = True
        if empty:
            # An infinite sampler would look for a sample for ever.
            places = [_describe(item) for item in dataset_configs(dataloader)]
            raise UserError(
                f'no sample found by {"; ".join(places)}. Check the folders '
                'and lists, the class names in metainfo, and img_suffix '
                '(where it is not given, that of the dataset class).'
            )
        if not hasattr(loader.dataset, '__getitems__'):
            loader.dataset.__getitems__ = NamedItems(loader.dataset)
        return loader


def build_dataset(cfg: Config, loader: str) -> Sized:
    """Build the dataset of a loader with the checks of a training.

    Args:
        cfg (Config): The config, which is not changed.
        loader (str): Such as ``'train_dataloader'``.

    Returns:
        Sized: The dataset, whose samples are as its pipeline leaves them.

    Raises:
        UserError: There is no such loader, or no sample.
    """
    if not cfg.get(loader):
        raise UserError(f'the config has no {loader}.')
    cfg = copy.deepcopy(cfg)
    check_paths(cfg, loader)
    _add_checks(cfg)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    return _Runner.build_dataloader(cfg[loader]).dataset


def check_output_folder(cfg: Config, folder: str | Path) -> None:
    """Refuse to write results where the pictures or masks are.

    Args:
        cfg (Config): The config.
        folder (str | Path): Where results are to be written.

    Raises:
        UserError: A dataset reads from that folder.
    """
    target = Path(folder).resolve()
    # The names in training and validation may be the same.
    for dataset in dataset_configs([cfg.get(loader) for loader in _LOADERS]):
        for path in _paths(dataset).values():
            source = Path(path).resolve()
            if target == source or source in target.parents:
                raise UserError(
                    f'{folder} is in the dataset folder {path}: results '
                    'there could replace pictures or masks. Name another.'
                )


def check_paths(cfg: Config, loader: str) -> None:
    """Refuse a dataset whose folders or lists are not there.

    Args:
        cfg (Config): The config.
        loader (str): Which of its dataloaders.

    Raises:
        UserError: One does not exist; remote ones are not looked for.
    """
    for dataset in dataset_configs(cfg.get(loader)):
        for name, path in _paths(dataset).items():
            if '://' in path or os.path.exists(path):
                continue
            raise UserError(
                f'{name} of {loader} does not exist: {path} (data_root is '
                f'{dataset.get("data_root")!r}, the current folder '
                f'{os.getcwd()}). Put the data there or set the path in the '
                f'config or with --cfg-options {loader}.dataset.data_root=...'
            )


def check_instances(cfg: Config, loader: str) -> dict[str, CocoReport]:
    """Check the annotation files of datasets in COCO's format.

    Args:
        cfg (Config): The config; where none is of COCO's there is nothing to
            check.
        loader (str): Which of its dataloaders.

    Returns:
        dict[str, CocoReport]: Of each file in COCO's format on this machine.

    Raises:
        UserError: One cannot be used, or the classes are not in it.
    """
    reports = {}
    for dataset in dataset_configs(cfg.get(loader)):
        # Others have formats of their own.
        if dataset.get('type') not in ('CocoDataset', 'mmdet.CocoDataset'):
            continue
        paths = _paths(dataset)
        if not dataset.get('ann_file'):
            raise UserError(f'the dataset of {loader} has no ann_file.')
        meta = dataset.get('metainfo') or {}
        classes = meta.get('classes') or ()
        if isinstance(classes, str) and not os.path.isfile(classes):
            raise UserError(
                f'metainfo.classes of {loader} is the text {classes!r}: '
                f'expected a tuple, such as ({classes!r},).'
            )
        if not classes:
            with DATASETS.switch_scope_and_registry('mmdet') as registry:
                classes = registry.get('CocoDataset').METAINFO['classes']
        masks = any(
            step.get('with_mask') for step in dataset.get('pipeline') or ()
        )
        if '://' in paths['ann_file']:
            continue
        reports[paths['ann_file']] = check_coco(
            paths['ann_file'],
            paths.get('data_prefix.img'),
            () if isinstance(classes, str) else classes,
            masks,
            evaluated=loader != 'train_dataloader',
        )
    return reports


def _check_evaluators(cfg: Config, loader: str, path: str) -> None:
    """Refuse to compare with another annotation file than the dataset's."""
    name = loader.replace('dataloader', 'evaluator')
    evaluators = cfg.get(name) or []
    if isinstance(evaluators, dict):
        evaluators = [evaluators]
    for other in (item.get('ann_file') for item in evaluators):
        if not other or '://' in other:
            continue
        there = os.path.isfile(other)
        if there and filecmp.cmp(other, path, shallow=False):
            continue
        raise UserError(
            f'{name}.ann_file is {other}, '
            + ('another file than' if there else 'which does not exist, not')
            + f' {path}, which {loader} reads. Set {name}.ann_file={path}'
        )


def dataset_configs(config: object) -> Iterator[ConfigDict]:
    """Go through the datasets in a config, also those in wrappers.

    Args:
        config (object): The config of a dataloader, or many in a list.

    Yields:
        ConfigDict: Of each dataset that reads files.
    """
    if isinstance(config, dict):
        if 'data_prefix' in config or 'ann_file' in config:
            yield config
        for value in config.values():
            yield from dataset_configs(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from dataset_configs(value)


def _paths(dataset: ConfigDict) -> dict[str, str]:
    """The files and folders a dataset reads, as BaseDataset joins them."""
    parts = dict(dataset.get('data_prefix') or {})
    parts = {f'data_prefix.{key}': value for key, value in parts.items()}
    parts['ann_file'] = dataset.get('ann_file')
    root = dataset.get('data_root') or ''
    return {
        name: os.path.join(root, part)
        for name, part in parts.items()
        if isinstance(part, str) and os.path.join(root, part)
    }


def _describe(dataset: ConfigDict) -> str:
    keys = ('data_root', 'data_prefix', 'ann_file', 'img_suffix')
    parts = [f'{key}={dataset[key]!r}' for key in keys if key in dataset]
    return f'{dataset.get("type")}({", ".join(parts)})'


def _add_checks(cfg: Config) -> None:
    hooks = list(cfg.get('custom_hooks') or [])
    _add_hook(hooks, 'mmseg_attn.CheckSetupHook')
    cfg.custom_hooks = hooks
    head = (cfg.get('model') or {}).get('decode_head')
    head = head[-1] if isinstance(head, (list, tuple)) and head else head
    if cfg.get('default_scope') != 'mmseg' or not head:
        return
    check = dict(
        type='mmseg_attn.CheckAnnotations',
        num_classes=head.get('num_classes'),
        ignore_index=head.get('ignore_index', 255),
    )
    if check['num_classes'] is not None:
        for loader in _LOADERS:
            _insert_after_loading(cfg.get(loader), check)


def _insert_after_loading(config: object, check: dict) -> None:
    """Put a transform behind every LoadAnnotations, however nested.

    One that is there, in a config that a runner wrote, is brought up to date.
    """
    if isinstance(config, dict):
        if str(config.get('type')).endswith('TestTimeAug'):
            return  # its lists are alternatives, not steps
        for value in config.values():
            _insert_after_loading(value, check)
    elif isinstance(config, list):
        types = [
            item.get('type') if isinstance(item, dict) else None
            for item in config
        ]
        for value in config:
            _insert_after_loading(value, check)
        if check['type'] in types:
            config[types.index(check['type'])].update(check)
        else:
            for place in reversed(range(len(config))):
                if types[place] in (
                    'LoadAnnotations',
                    'mmseg.LoadAnnotations',
                ):
                    config.insert(place + 1, ConfigDict(check))


def _make_resumable(cfg: Config) -> None:
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    saver = hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    if saver and saver.get('type') in (
        'CheckpointHook',
        'mmengine.CheckpointHook',
    ):
        saver['type'] = 'mmseg_attn.SafeCheckpointHook'
    _add_hook(cfg.custom_hooks, 'mmseg_attn.ReplayHook')
    loader = cfg.get('train_dataloader')
    if loader and loader.sampler.type != 'mmseg_attn.ReplaySampler':
        loader.sampler = dict(
            type='mmseg_attn.ReplaySampler', sampler=loader.sampler
        )


def _add_hook(hooks: list, name: str) -> None:
    if all(hook.get('type') != name for hook in hooks):
        hooks.append(dict(type=name))


def _adapt_to_cpu(cfg: Config) -> list[str]:
    """Change what needs a GPU, and say so."""
    notes = []
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') == 'AmpOptimWrapper':
        wrapper['type'] = 'mmseg_attn.BFloat16OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
        notes.append('No GPU: mixed precision runs in bfloat16.')
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none':
        return notes
    if launcher != 'pytorch':
        raise UserError(
            f'no GPU found: without one, several processes need --launcher '
            f'pytorch (torchrun, tools/dist_train.sh), not {launcher}.'
        )
    if not dist.is_initialized():
        # mmengine would choose a GPU first, even with the gloo backend.
        timeout = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
        dist.init_process_group(
            'gloo',
            timeout=timeout and datetime.timedelta(seconds=timeout),
        )
    wrapper = cfg.setdefault('model_wrapper_cfg', ConfigDict())
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper.setdefault('device_ids', None)
    wrapper.setdefault('broadcast_buffers', False)
    wrapper.setdefault(
        'find_unused_parameters', cfg.get('find_unused_parameters', False)
    )
    if _replace_type(cfg.get('model'), 'SyncBN', 'BN'):
        notes.append(
            'No GPU: SyncBN runs as BN, with the statistics of each process '
            'for itself. Give each process enough pictures.'
        )
    return notes


def _replace_type(config: object, old: str, new: str) -> int:
    """Replace a type wherever it stands, and count how often."""
    if isinstance(config, (list, tuple)):
        return sum(_replace_type(value, old, new) for value in config)
    if not isinstance(config, dict):
        return 0
    count = sum(_replace_type(value, old, new) for value in config.values())
    if config.get('type') == old:
        config['type'] = new
        count += 1
    return count


def _choose_checkpoint(cfg: Config) -> list[str]:
    """Turn cfg.resume into what mmengine knows: a flag and load_from."""
    resume, cfg.load_from = cfg.get('resume'), cfg.get('load_from')
    cfg.resume = bool(resume)
    if not resume or (resume is True and cfg.load_from):
        return []
    if isinstance(resume, str) and resume != 'auto':
        cfg.load_from = resume
        return []
    found = find_latest(cfg.work_dir)
    if found:
        cfg.load_from = found
        return []
    cfg.resume = False
    return [f'Nothing to resume in {cfg.work_dir}: starting anew.']


def _check_unused(work_dir: str | Path) -> None:
    """Refuse to train over the checkpoints of an earlier training."""
    earlier = [
        path.name
        for pattern in ('iter_*.pth', 'epoch_*.pth')
        for path in Path(work_dir).glob(pattern)
    ]
    if earlier:
        raise UserError(
            f'{work_dir} holds {len(earlier)} checkpoint(s) of an earlier '
            f'training ({min(earlier)}, ...), which a new one would replace. '
            '--resume goes on from the newest; to start anew, name another '
            'folder with --work-dir or move them away.'
        )


def _check_resumable(cfg: Config, checkpoint: dict) -> None:
    meta = checkpoint.get('meta') or {}
    if 'optimizer' not in checkpoint or 'iter' not in meta:
        raise UserError(
            f'{cfg.load_from} cannot be resumed from: it holds no state of '
            'the optimizer (best_*.pth and published files hold weights '
            'only). Start from its weights instead: --cfg-options '
            f'load_from={cfg.load_from}'
        )
    # The order of the samples follows from the seed, and mmengine takes the
    # checkpoint's seed only after the sampler has been built.
    randomness = cfg.setdefault('randomness', ConfigDict())
    if randomness.get('seed') is None:
        randomness['seed'] = meta.get('seed')


def _build(cfg: Config) -> Runner:
    if cfg.get('default_scope'):
        # Two runners of one second share mmengine's name of the scope, and
        # the second would keep what was set in between.
        init_default_scope(cfg.default_scope)
    with _names_near():
        if 'runner_type' in cfg:
            return RUNNERS.build(cfg)
        return _Runner.from_cfg(cfg)


@contextmanager
def model_mistakes() -> Iterator[None]:
    """Name what is wrong in the config of a model.

    Yields:
        None: While the model is built.

    Raises:
        UserError: Instead of what its parts or the registry raise.
    """
    with _names_near():
        try:
            yield
        except (TypeError, ValueError, AssertionError) as error:
            if not str(error):
                raise
            raise UserError(f'the model cannot be built: {error}') from error


@contextmanager
def _names_near() -> Iterator[None]:
    """Say which registered names are near one that is not registered."""
    try:
        yield
    except (KeyError, RuntimeError) as error:
        text = str(error)
        found = re.search(r'([\w.]+) is not in the \S+ registry', text)
        found = found or re.search(r'Failed to get ([\w.]+)', text)
        if not found:
            raise
        names = [
            (f'{scope}.' if scope == 'mmseg_attn' else '') + name
            for root in (MODELS, DATASETS, TRANSFORMS)
            for scope, registry in root.children.items()
            for name in registry.module_dict
        ]
        near = difflib.get_close_matches(found[1], names)
        raise UserError(
            f'the config asks for type={found[1]!r}, which nothing provides.'
            + (f' Near it: {", ".join(near)}.' if near else '')
        ) from error
