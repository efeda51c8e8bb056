# Copyright (c) mmseg_attn contributors.
"""The commands of ``python -m mmseg_attn``: their arguments, no more."""
