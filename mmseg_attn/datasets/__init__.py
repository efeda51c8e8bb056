# Copyright (c) mmseg_attn contributors.
