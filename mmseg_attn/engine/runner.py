# Copyright (c) mmseg_attn contributors.
"""Build mmengine's Runner with what keeps a training safe."""

import copy
import functools
import gc
import os
from collections.abc import Callable, Sized
from pathlib import Path

import torch.distributed as dist
from mmengine.config import Config
from mmengine.registry import MODELS, RUNNERS, init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from ..configs import load_config
from ..errors import UserError
from ..hosts import HostError
from .accuracy import quick_accuracy
from .adapt import adapt
from .checkpoint import match_weights
from .config_checks import check_config
from .config_errors import check_installed, config_mistakes
from .data_checks import (
    add_file_checks,
    check_data,
    check_paths,
    no_sample,
)
from .resume import resume
from .samples import NamedItems
from .unlabelled import check_labelled


def build_runner(cfg: str | Path | Config, train: bool = True) -> Runner:
    """Build a Runner that checks its inputs and never loses a checkpoint.

    It works for any config of MMSegmentation or MMDetection and puts in:
    checks of labels, folders, class numbers and channels; checkpoints that
    are written whole and removed only after their successor is there; exact
    resuming; and what a machine without a GPU needs, such as
    :func:`~mmseg_attn.engine.accuracy.quick_accuracy` while it trains.

    Args:
        cfg: Path or name of a config (see
            :func:`~mmseg_attn.apis.find_config`), or a loaded one, which is
            not changed. Its ``resume`` may also be a checkpoint's path, or
            'auto' for the newest one in the work folder (a fresh start where
            there is none).
        train: Whether it is to train. Otherwise ``cfg.load_from`` must fit
            the model fully.

    Returns:
        Ready for ``train()`` or ``test()``.

    Raises:
        UserError: The config, the data or the checkpoint cannot be used.
    """
    cfg = copy.deepcopy(load_config(cfg))
    notes = check(cfg, train)
    notes += adapt(cfg, train)
    more, checkpoint = resume(cfg, train)
    runner = build(cfg)
    for note in notes + more:
        runner.logger.warning(note)
    if checkpoint is not None:
        model = runner.model
        if not isinstance(model, nn.Module):
            # A FlexibleRunner builds its own when it starts, where it may be
            # in parts, and loads the file itself: here it is tried out.
            with config_mistakes('the model'):
                model = MODELS.build(cfg.model)
        strict = bool(cfg.resume) or not train
        match_weights(model, checkpoint, cfg.load_from, strict)
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


def check(cfg: Config, train: bool) -> list[str]:
    """Check that the config's host and its data are there and whole.

    Args:
        cfg: The config.
        train: Whether it is to train.

    Returns:
        What is worth a warning, a line each.

    Raises:
        UserError: It cannot run.
    """
    check_installed(cfg)
    check_config(cfg, train)
    # Several datasets of a loader are built, to compare their classes.
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    loaders = ('train_dataloader', 'val_dataloader')
    notes = []
    for loader in loaders if train else ('test_dataloader',):
        notes += check_data(cfg, loader)
        check_labelled(cfg, loader)
    return notes


def build(cfg: Config) -> Runner:
    """Build the Runner of a config.

    Args:
        cfg: The config, as mmengine expects it.

    Returns:
        mmengine's, or that of ``cfg.runner_type``.

    Raises:
        UserError: The model or a dataset cannot be built.
    """
    if cfg.get('default_scope'):
        # Two runners of one second share mmengine's name of the scope, and
        # the second would keep what was set in between.
        init_default_scope(cfg.default_scope)
    with config_mistakes('a training or test of this config'):
        if 'runner_type' in cfg:
            return RUNNERS.build(cfg)
        return _Runner.from_cfg(cfg)


def build_dataset(cfg: Config, loader: str) -> Sized:
    """Build the dataset of a loader with the checks of a training.

    Args:
        cfg: The config, which is not changed.
        loader: Such as ``'train_dataloader'``.

    Returns:
        The dataset, whose samples are as its pipeline leaves them.

    Raises:
        UserError: There is no such loader, or no sample.
    """
    if not cfg.get(loader):
        raise UserError(f'the config has no {loader}.')
    cfg = copy.deepcopy(cfg)
    check_paths(cfg, loader)
    add_file_checks(cfg)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    return _Runner.build_dataloader(cfg[loader]).dataset


def _in_words(what: str, build: Callable) -> Callable:
    """A method that builds, with words for mistakes in the config."""

    @functools.wraps(build)
    def method(*args, **kwargs) -> object:
        with config_mistakes(what):
            return build(*args, **kwargs)

    return method


class _Runner(Runner):
    """mmengine's Runner, with words for mistakes in the config."""

    # It builds these when they are needed, after the runner itself.
    build_model = _in_words('the model', Runner.build_model)
    build_evaluator = _in_words('an evaluator', Runner.build_evaluator)
    build_optim_wrapper = _in_words(
        'the optimizer (optim_wrapper)', Runner.build_optim_wrapper
    )
    build_param_scheduler = _in_words(
        'param_scheduler', Runner.build_param_scheduler
    )
    build_train_loop = _in_words(
        'the training loop (train_cfg)', Runner.build_train_loop
    )
    build_val_loop = _in_words(
        'the validation loop (val_cfg)', Runner.build_val_loop
    )
    build_test_loop = _in_words(
        'the test loop (test_cfg)', Runner.build_test_loop
    )

    def train(self) -> nn.Module:
        try:
            with quick_accuracy():
                return super().train()
        except FileNotFoundError as error:
            work_dir = os.path.abspath(self.work_dir)
            lost = os.path.abspath(str(error.filename))
            if not lost.startswith(work_dir):
                raise
            raise UserError(
                f'iteration {self.iter}: {lost} is gone, so the work folder '
                f'{self.work_dir} was moved or removed while the training '
                'ran. Put it back and go on with --resume, or start anew.'
            ) from error

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
        with config_mistakes('a dataloader'):
            try:
                loader = Runner.build_dataloader(dataloader, **kwargs)
                empty = not len(loader.dataset)
            except ValueError as error:
                if not HostError.NO_SAMPLE.found_in(error):
                    raise
                empty = True
        if empty:
            # An infinite sampler would look for a sample for ever.
            raise no_sample(dataloader)
        if not hasattr(loader.dataset, '__getitems__'):
            loader.dataset.__getitems__ = NamedItems(loader.dataset)
        return loader
