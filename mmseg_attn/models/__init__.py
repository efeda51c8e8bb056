# Copyright (c) mmseg_attn contributors.
"""Models and their parts, registered under the scope ``mmseg_attn``."""

from importlib.util import find_spec

from .. import layers  # noqa: F401  (registers the plug-in layers)
from ..hosts import warn_if_mixed
from .backbones import *  # noqa: F401,F403
from .losses import *  # noqa: F401,F403
from .necks import *  # noqa: F401,F403
from .samplers import *  # noqa: F401,F403

# A detector needs no mmseg: without it there are no heads.
if find_spec('mmseg'):
    from .data_preprocessors import *  # noqa: F401,F403
    from .decode_heads import *  # noqa: F401,F403
    from .segmentors import *  # noqa: F401,F403
    from .stereo import *  # noqa: F401,F403

warn_if_mixed()
