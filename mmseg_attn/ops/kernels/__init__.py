# Copyright (c) mmseg_attn contributors.
"""Triton kernels, for CUDA devices."""
