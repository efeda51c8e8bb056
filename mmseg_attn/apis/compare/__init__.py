# Copyright (c) mmseg_attn contributors.
"""``python -m mmseg_attn compare``: all methods under one budget."""

from .command import add_arguments, main

__all__ = ['add_arguments', 'main']
