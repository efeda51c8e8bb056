# Copyright (c) mmseg_attn contributors.
from .attention_head import AttentionHead
from .cc_head import CCHead
from .ce2p_head import CE2PHead

__all__ = ['AttentionHead', 'CCHead', 'CE2PHead']
