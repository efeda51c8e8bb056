# Copyright (c) mmseg_attn contributors.
__all__ = []
