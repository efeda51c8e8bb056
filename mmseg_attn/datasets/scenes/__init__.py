# Copyright (c) mmseg_attn contributors.
"""Demo scenes in which only something far away tells a class."""

from .clips import write_clips
from .folder import write_folder
from .render import render
from .scene import CLASSES, GROUPS, PALETTE, Scene, SceneObject, make_scenes
from .stereo import write_pairs

__all__ = [
    'CLASSES',
    'GROUPS',
    'PALETTE',
    'Scene',
    'SceneObject',
    'make_scenes',
    'render',
    'write_clips',
    'write_folder',
    'write_pairs',
]
