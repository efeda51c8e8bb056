# Copyright (c) mmseg_attn contributors.
"""``python -m mmseg_attn demo``: what attention brings, seen and measured."""

from .command import add_arguments, main

__all__ = ['add_arguments', 'main']
