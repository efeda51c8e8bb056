# Copyright (c) mmseg_attn contributors.
"""A hook that compares datasets, backbone and heads."""

from collections.abc import Iterator, Sized

import torch
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch import nn

from ..errors import UserError, near
from ..hosts import HostError
from ..registry import HOOKS
from .batch_checks import check_batches
from .label_checks import check_label_maps


@HOOKS.register_module()
class CheckSetupHook(Hook):
    """Compare datasets, backbone and heads before the first iteration."""

    def before_run(self, runner: Runner) -> None:
        """Check the model and the datasets of the loops about to run.

        Args:
            runner: The runner.

        Raises:
            UserError: A dataset has more classes than a head, or a head
                expects other channels than the backbone gives, or the clips
                of a dataset label another frame than the model segments, or
                its label maps cannot be meant so, or a batch of a test would
                hold pictures of several sizes.
        """
        model = runner.model
        while hasattr(model, 'module'):  # DDP, test-time augmentation
            model = model.module
        check_channels(model)
        check_class_weights(model)
        for kind in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{kind}_loop')
            if not isinstance(loop, BaseLoop):
                continue
            dataset = loop.dataloader.dataset
            check_groups(dataset)
            if hasattr(model, 'check_label_frame'):
                model.check_label_frame(dataset)
            for name, head in _heads(model):
                self._check_classes(runner, dataset, name, head)
            for line in check_label_maps(dataset):
                runner.logger.warning(line)
            if kind != 'train':
                check_batches(f'{kind}_dataloader', loop.dataloader, model)

    def _check_classes(
        self, runner: Runner, dataset: Sized, name: str, head: nn.Module
    ) -> None:
        classes = getattr(dataset, 'metainfo', {}).get('classes') or ()
        num_classes = getattr(head, 'num_classes', None)
        if not classes or num_classes in (None, len(classes)):
            return
        text = (
            f'model.{name}.num_classes is {num_classes}, but '
            f'{type(dataset).__name__} has {len(classes)} classes '
            f'({", ".join(map(str, classes[:5]))}'
            f'{", ..." if len(classes) > 5 else ""})'
        )
        if num_classes < len(classes):
            raise UserError(f'{text}. Set them to the same number.')
        runner.logger.warning(f'{text}: some outputs stay unused.')


def check_groups(dataset: Sized) -> None:
    """Refuse groups of classes that name what is no class.

    Args:
        dataset: A dataset; one without groups is passed over.

    Raises:
        UserError: It says which name, and what there is.
    """
    about = getattr(dataset, 'metainfo', {})
    classes = [str(name) for name in about.get('classes') or ()]
    for group, names in (about.get('groups') or {}).items():
        unknown = [name for name in names if name not in classes]
        if unknown:
            raise UserError(
                f'group {group!r} of {type(dataset).__name__} names the class '
                f'{unknown[0]!r}, expected one of '
                f'{", ".join(classes)}.{near(str(unknown[0]), classes)}'
            )


def check_class_weights(model: nn.Module) -> None:
    """Refuse weights of classes that are not one for each class.

    Args:
        model: A model; its heads' losses are looked at.

    Raises:
        UserError: It says how many there are and how many are expected.
    """
    for name, head in _heads(model):
        for key in ('loss_decode', 'loss_cls'):
            losses = getattr(head, key, None)
            many = isinstance(losses, nn.ModuleList)
            for number, loss in enumerate(losses if many else [losses]):
                place = f'model.{name}.{key}' + f'[{number}]' * many
                _check_weights(name, place, loss, head)


def _check_weights(
    name: str, place: str, loss: object, head: nn.Module
) -> None:
    classes = getattr(head, 'num_classes', None)
    expected = [classes, getattr(head, 'out_channels', None)]
    if place.endswith('loss_cls') and not getattr(loss, 'use_sigmoid', True):
        expected = [classes and classes + 1]  # the last is the background
    for key in ('class_weight', 'alpha'):
        weights = getattr(loss, key, None)
        if not hasattr(weights, '__len__') or not classes:
            continue
        if len(weights) not in expected:
            raise UserError(
                f'{place}.{key} has {len(weights)} weights, expected '
                f'{expected[0]}: model.{name}.num_classes is {classes}.'
            )
        if not all(0 <= float(weight) < float('inf') for weight in weights):
            raise UserError(
                f'{place}.{key} is {list(weights)}, expected finite numbers '
                'of 0 or more.'
            )


def check_channels(model: nn.Module) -> None:
    """Send one small black picture through the backbone of a segmentor.

    Args:
        model: A model of any kind. Those without ``decode_head``, and those
            whose backbone does not take a picture of 64 x 64, are passed
            over.

    Raises:
        UserError: The backbone expects other channels than the picture has,
            or a head other channels than the backbone gives.
    """
    clips = any(isinstance(module, nn.Conv3d) for module in model.modules())
    if clips or not all(
        hasattr(model, name) for name in ('decode_head', 'extract_feat')
    ):
        return
    channels = picture_channels(model)
    picture = torch.zeros(1, channels, 64, 64)
    picture = picture.to(next(model.parameters()).device)
    training = model.training
    try:
        with torch.no_grad():
            maps = model.eval().extract_feat(picture)
    except RuntimeError as error:
        if HostError.WRONG_CHANNELS.found_in(error):
            raise UserError(
                f'the backbone does not fit pictures of {channels} channels '
                f'(so many has data_preprocessor.mean): {error}'
            ) from error
        return
    finally:
        model.train(training)
    for name, head in _heads(model):
        _check_head(name, head, [int(item.shape[1]) for item in maps])


def picture_channels(model: nn.Module) -> int:
    """Find how many channels the pictures of a model have.

    Args:
        model: A model.

    Returns:
        As many as are normalised; where none are, those of its first
        convolution.
    """
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    if mean is not None:
        return mean.numel()
    for module in getattr(model, 'backbone', model).modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3


def _check_head(name: str, head: nn.Module, given: list[int]) -> None:
    expected = getattr(head, 'in_channels', None)
    index = getattr(head, 'in_index', None)
    if expected is None or index is None:
        return
    indices = [index] if isinstance(index, int) else list(index)
    if any(not -len(given) <= item < len(given) for item in indices):
        raise UserError(
            f'model.{name}.in_index is {index}, but the backbone (with its '
            f'neck) gives {len(given)} maps: expected 0 to {len(given) - 1}.'
        )
    chosen = [given[item] for item in indices]
    if isinstance(expected, int):
        chosen = sum(chosen)
    if chosen != (expected if isinstance(expected, int) else list(expected)):
        raise UserError(
            f'model.{name}.in_channels is {expected}, but at in_index '
            f'{index} the backbone (with its neck) gives {chosen} channels; '
            f'its maps have {given}. Set in_channels or in_index.'
        )


def _heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Go through the heads of a segmentor or detector that know classes."""
    for name in (
        'decode_head',
        'auxiliary_head',
        'bbox_head',
        'roi_head.bbox_head',
        'roi_head.mask_head',
    ):
        head = model
        for part in name.split('.'):
            head = getattr(head, part, None)
        if isinstance(head, nn.ModuleList):
            for number, item in enumerate(head):
                yield f'{name}[{number}]', item
        elif head is not None:
            yield name, head
