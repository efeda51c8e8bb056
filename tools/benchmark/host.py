# Copyright (c) mmseg_attn contributors.
"""The host's criss-cross attention, with and without compiled operators."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path


@cache
def criss_cross_layer():
    """The class CrissCrossAttention of mmcv.

    It is plain PyTorch in a file of its own, but mmcv.ops, where it is, can
    be imported only where mmcv's operators are compiled.

    Raises:
        ImportError: mmcv is not installed.
    """
    try:
        from mmcv.ops import CrissCrossAttention
    except ImportError:
        import mmcv

        path = Path(mmcv.__file__).parent / 'ops' / 'cc_attention.py'
        spec = importlib.util.spec_from_file_location('cc_attention', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.CrissCrossAttention
    return CrissCrossAttention
