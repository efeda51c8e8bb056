# Copyright (c) mmseg_attn contributors.
"""What several operators share."""
