# Copyright (c) mmseg_attn contributors.
"""Options that the tools share."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch

NARROW = ['float16', 'bfloat16']


def size(text):
    """Check an argument BxHxW."""
    if re.fullmatch(r'[1-9]\d*(x[1-9]\d*){2}', text):
        return text
    raise argparse.ArgumentTypeError(f'{text!r} is not like 2x97x97 (BxHxW)')


def positive(text):
    """Check an argument that counts."""
    if re.fullmatch(r'[1-9]\d*', text):
        return int(text)
    raise argparse.ArgumentTypeError(f'{text!r} is no integer from 1 on')


def folder(text):
    """Make a folder before anything takes time."""
    try:
        Path(text).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f'{text!r} cannot be a folder: {error.strerror}'
        raise argparse.ArgumentTypeError(message) from None
    return Path(text)


def device(text):
    """Check the name of a device that is here."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        message = f'{text!r} cannot be used: {reason}'
        raise argparse.ArgumentTypeError(message) from None
    return text


def parser(doc):
    """A parser with the options of all tools that time."""
    result = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawTextHelpFormatter
    )
    result.add_argument('--channels', type=positive, default=512)
    result.add_argument(
        '--dtype', default='float32', choices=['float32', *NARROW]
    )
    result.add_argument(
        '--tf32', action='store_true', help='allow TF32 products of fp32'
    )
    result.add_argument(
        '--device',
        type=device,
        default='cuda' if torch.cuda.is_available() else 'cpu',
    )
    result.add_argument('--threads', type=int, help='CPU threads')
    result.add_argument('--repeat', type=int, default=30, help='most rounds')
    result.add_argument('--out', type=folder, help='folder for the results')
    result.set_defaults(amp=None)
    return result


def add_amp(parser):
    """Let the tool run within autocast."""
    parser.add_argument(
        '--amp',
        nargs='?',
        const='bfloat16',
        choices=NARROW,
        help='autocast to this dtype, by default bfloat16; parameters are\n'
        'fp32, maps of --dtype',
    )
