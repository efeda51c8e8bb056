# Copyright (c) mmseg_attn contributors.
"""Train and test small models in processes of their own."""
