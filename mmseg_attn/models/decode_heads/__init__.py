# Copyright (c) mmseg_attn contributors.
"""Decode heads."""

from .attention_head import AttentionHead
from .caa_head import CAAHead
from .cc_head import CCHead
from .cc_head_3d import CCHead3D
from .ce2p_head import CE2PHead
from .ea_head import EAHead
from .isa_head import ISAHead
from .la_head import LAHead
from .manet_head import MANetHead
from .mares_unet_head import MAResUNetHead
from .squeeze_attention_head import SqueezeAttentionHead

__all__ = [
    'AttentionHead',
    'CAAHead',
    'CCHead',
    'CCHead3D',
    'CE2PHead',
    'EAHead',
    'ISAHead',
    'LAHead',
    'MANetHead',
    'MAResUNetHead',
    'SqueezeAttentionHead',
]
