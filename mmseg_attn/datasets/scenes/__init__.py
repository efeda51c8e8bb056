# Copyright (c) mmseg_attn contributors.
"""Demo scenes in which only something far away tells a class."""

from .folder import write_folder
from .render import render
from .scene import CLASSES, GROUPS, PALETTE, Scene, SceneObject, make_scenes

__all__ = [
    'CLASSES',
    'GROUPS',
    'PALETTE',
    'Scene',
    'SceneObject',
    'make_scenes',
    'render',
    'write_folder',
]
