# Copyright (c) mmseg_attn contributors.
"""The configs of the project, each read once for all tests."""

from functools import cache
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[1]
ALL = sorted(
    path
    for path in ROOT.glob('configs/**/*.py')
    if '_base_' not in path.relative_to(ROOT).parts
)


def name(path: Path) -> str:
    return path.stem


@cache
def parsed(path: Path) -> Config:
    """Read a config once for all tests: reading takes as long as testing."""
    return Config.fromfile(path)
