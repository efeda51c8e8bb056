# Copyright (c) mmseg_attn contributors.
"""What layers are made of: the hosts' classes, or our own of the same names.

Where mmengine is installed, layers are its modules and are registered in the
scope ``mmseg_attn``; where mmcv is, their convolutions, norms and activations
are built by it, so that a config may name any type that is registered. Where
one is missing, :mod:`mmseg_attn.layers.plain` stands in, and torch is all that
a layer needs. A host that is there but cannot be imported raises its own
error.
"""

from importlib.util import find_spec

if find_spec('mmengine'):
    from mmengine.model import BaseModule, Sequential

    from ..registry import MODELS
else:
    from .plain import MODELS, BaseModule, Sequential

if find_spec('mmcv'):
    from mmcv.cnn import ConvModule, Scale, build_activation_layer
else:
    from .plain import ConvModule, Scale, build_activation_layer

__all__ = [
    'MODELS',
    'BaseModule',
    'ConvModule',
    'Scale',
    'Sequential',
    'build_activation_layer',
]
