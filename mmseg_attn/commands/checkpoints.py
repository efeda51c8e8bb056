# Copyright (c) mmseg_attn contributors.
"""The weights of a model on a command line: given, or those of the zoo."""

import argparse
from pathlib import Path

from ..configs import find_config
from ..errors import UserError
from ..files import find_best
from ..metafiles import find_row, is_row

# Endings of files of weights.
WEIGHTS = ('.pth', '.pt', '.safetensors')


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the weights, as ``checkpoint``, for :func:`find_weights`."""
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='trained weights: a file, a URL, or the folder of a training, '
        'whose best ones are taken (none: those of the zoo)',
    )


def best_weights(text: str) -> str:
    """Find the best weights of a training.

    Args:
        text: Its folder, or what else names weights.

    Returns:
        The file in the folder, or the text.

    Raises:
        UserError: There is none in the folder.
    """
    if not Path(text).is_dir():
        return text
    found = find_best(text)
    if not found:
        raise UserError(
            f'{text} is a folder without best_*.pth: name a file of weights'
        )
    return found


def find_weights(
    config: str, checkpoint: str | None, inputs: list | None = None
) -> str:
    """Choose the weights of a model: those given, else those of the zoo.

    Args:
        config: What names the model.
        checkpoint: What stands behind it, if anything does.
        inputs: What follows. Behind the name of a model of the zoo it may
            begin where a checkpoint would stand: that is put back in front.

    Returns:
        The file.

    Raises:
        UserError: There are none.
    """
    known = is_row(config)
    if checkpoint and known and inputs is not None:
        is_file = checkpoint.endswith(WEIGHTS)
        if not (is_file or find_best(checkpoint)):
            inputs.insert(0, checkpoint)
            checkpoint = None
    if checkpoint:
        return best_weights(checkpoint)
    if not known:
        find_config(config)  # says what else a wrong name may have meant
        raise UserError(
            f'{config} is no model of the zoo, which brings weights (zoo '
            'list): expected a checkpoint behind it.'
        )
    from ..apis import zoo

    row = find_row(config)
    path = zoo.find_weights(row)
    print(f'{row.title}: {path.name} of the zoo')
    return str(path)
