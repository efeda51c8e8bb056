# Copyright (c) mmseg_attn contributors.
"""Load checkpoints into models, or say why they do not fit."""

import re
import warnings
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from ..errors import UserError
from .pretrained import read_checkpoint

# Modules that a message names.
NAMED = 6


def load_checkpoint(path: str | Path, map_location: str = 'cpu') -> dict:
    """Load a checkpoint with ``weights_only`` and explain what fails.

    Args:
        path: The file or its address, as for
            :func:`~mmseg_attn.engine.pretrained.read_checkpoint`.
        map_location: Device of the tensors.

    Returns:
        The checkpoint: a state dict, or a dict that holds one.

    Raises:
        UserError: It is missing, damaged, refused by ``weights_only``, or
            holds no weights or such that are not finite.
    """
    checkpoint = read_checkpoint(path, map_location)
    if not isinstance(checkpoint, dict) or not any(
        isinstance(value, torch.Tensor)
        for value in weights_of(checkpoint).values()
    ):
        raise UserError(
            f'{path} holds no weights: expected a state dict or a dict with '
            f'"state_dict", got {_describe(checkpoint)}.'
        )
    return checkpoint


def load_weights(
    model: nn.Module, path: str | Path, strict: bool = True
) -> dict:
    """Load a checkpoint's weights into a model.

    Args:
        model: The model.
        path: As in :func:`load_checkpoint`.
        strict: Refuse a checkpoint that does not give every weight of the
            model in its shape. Surplus weights are passed over, with a
            warning where they are not of an auxiliary head. Without it, at
            least one weight must fit.

    Returns:
        The checkpoint.

    Raises:
        UserError: The checkpoint cannot be loaded or is of another model.
    """
    checkpoint = load_checkpoint(path)
    surplus = [
        key
        for key in match_weights(model, checkpoint, str(path), strict)
        if not key.startswith('auxiliary_head')
    ]
    if surplus:
        warnings.warn(
            f'{len(surplus)} weights of {path} have no place in the model '
            f'(first: {surplus[0]}): it may be of another config.',
            stacklevel=2,
        )
    return checkpoint


def match_weights(
    model: nn.Module, checkpoint: dict, name: str, strict: bool = True
) -> list[str]:
    """Load those weights of a checkpoint that fit, or say what does not.

    Args:
        model: The model. Weights that fit are taken over even when this
            raises.
        checkpoint: From :func:`load_checkpoint`.
        name: Its name in the message.
        strict: As in :func:`load_weights`.

    Returns:
        Surplus weights of the checkpoint, which have no place in the model.

    Raises:
        UserError: The checkpoint is of another model.
    """
    # A test-time-augmentation or DDP wrapper keeps the model in .module.
    if not hasattr(model, 'backbone') and hasattr(model, 'module'):
        model = model.module
    weights = weights_of(checkpoint)
    metadata = getattr(weights, '_metadata', {})
    weights = OrderedDict(
        (re.sub(r'^module\.', '', key), value)
        for key, value in weights.items()
    )
    missing, unexpected, wrong = [], [], []

    # As nn.Module.load_state_dict, but the three lists are kept apart. The
    # modules' load hooks run, so renamed weights count as present.
    def load(module: nn.Module, prefix: str = '') -> None:
        module._load_from_state_dict(
            weights,
            prefix,
            metadata.get(prefix[:-1], {}),
            True,
            missing,
            unexpected,
            wrong,
        )
        for child_name, child in module.named_children():
            load(child, f'{prefix}{child_name}.')

    load(model)
    # torch fills in a missing count of batches, which is no weight.
    known = model.state_dict()
    own = {key for key in known if not key.endswith('num_batches_tracked')}
    fitting = len(own) - len(own.intersection(missing)) - len(wrong)
    if fitting > 0 and not (strict and (missing or wrong)):
        if missing or wrong:
            fresh = own.intersection(missing)
            fresh.update(map(_key_of, wrong))
            warnings.warn(
                f'{name} gives {fitting} of the {len(own)} weights of the '
                f'model; the others start anew: {_named_modules(fresh)}.',
                stacklevel=2,
            )
        return unexpected
    parts = []
    if wrong:
        parts.append(
            f'{len(wrong)} of another shape (first: {_shape_note(wrong[0])})'
        )
    if missing:
        parts.append(f'{len(missing)} missing (first: {missing[0]})')
    if unexpected:
        parts.append(f'{len(unexpected)} unknown (first: {unexpected[0]})')
    raise UserError(
        f'{name} is a checkpoint of another model: of {len(own)} weights '
        f'{fitting} fit; ' + ', '.join(parts) + '. Use the config it was '
        'trained with (its number of classes and its channels included).'
    )


def weights_of(checkpoint: dict) -> dict:
    """Find the state dict in a checkpoint.

    Args:
        checkpoint: A state dict, or a dict that holds one.

    Returns:
        The state dict.
    """
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), dict):
            return checkpoint[key]
    return checkpoint


def _describe(value: object) -> str:
    if isinstance(value, dict):
        keys = ', '.join(map(str, list(value)[:5]))
        return f'a dict with keys {keys}' if keys else 'an empty dict'
    return f'a {type(value).__name__}'


def _key_of(message: str) -> str:
    """The weight that torch's message about a shape is of."""
    return re.search(r'size mismatch for (\S+):', message)[1]


def _named_modules(keys: set[str]) -> str:
    """Name the modules of some weights, not all where they are many."""
    names = sorted({key.rpartition('.')[0] or key for key in keys})
    text = ', '.join(names[:NAMED])
    more = len(names) - NAMED
    return f'{text} and {more} more' if more > 0 else text


def _shape_note(message: str) -> str:
    """Shorten torch's message about one weight of another shape."""
    found = re.search(
        r'size mismatch for (\S+): .*?\[([^\]]*)\].*?\[([^\]]*)\]', message
    )
    if not found:
        return message
    return f'{found[1]}, ({found[2]}) in the file, ({found[3]}) in the model'
