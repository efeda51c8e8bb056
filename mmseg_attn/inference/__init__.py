# Copyright (c) mmseg_attn contributors.
"""What stands between the command ``predict`` and a model.

Inputs are found, gathered, run, drawn and written here, whatever runs the
model: a host, or an exported file (:mod:`mmseg_attn.runtime`). Needs numpy,
Pillow and rich; no host and no torch.
"""
