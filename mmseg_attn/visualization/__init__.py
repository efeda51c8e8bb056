# Copyright (c) mmseg_attn contributors.
"""Pictures of results that the hosts do not draw."""
