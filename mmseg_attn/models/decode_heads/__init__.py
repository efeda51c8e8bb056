# Copyright (c) mmseg_attn contributors.
from .cc_head import CCHead
from .ce2p_head import CE2PHead

__all__ = ['CCHead', 'CE2PHead']
