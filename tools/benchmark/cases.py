# Copyright (c) mmseg_attn contributors.
"""What is compared: our operators and layers, and the peers installed.

A case is a function (size) -> (inputs, contestants): tensors that get
gradients, and callables of them by name, ours first. A peer that is not
installed is left out with the reason.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mmseg_attn.layers import CrissCrossAttention
from mmseg_attn.ops import criss_cross_attention


def _einsum_criss_cross(query, key, value):
    """The formulation of mmcv's layer and the authors' pure PyTorch code.

    On (B, C, H, W): einsum, -inf on the diagonal of the column scores, one
    softmax over the concatenated scores.
    """
    height = query.shape[2]
    own = torch.eye(height, dtype=torch.bool, device=query.device)
    column = torch.einsum('bchw,bcgw->bwhg', query, key)
    column = column.masked_fill(own, -torch.inf).transpose(1, 2)
    row = torch.einsum('bchw,bchv->bhwv', query, key)
    weights = F.softmax(torch.cat([column, row], -1), -1)
    out = torch.einsum('bcgw,bhwg->bchw', value, weights[..., :height])
    return out + torch.einsum('bchv,bhwv->bchw', value, weights[..., height:])


def criss_cross_operator(batch, height, width, channels, **kwargs):
    """Projected query and key of C/8 channels, value of C.

    Each contestant gets the layout that it is made for: ours
    (B, H, W, heads, dim), the einsum formulation (B, C, H, W).
    """
    sizes = (channels // 8, channels // 8, channels)
    maps = [torch.randn(batch, c, height, width, **kwargs) for c in sizes]
    last = [m.movedim(1, -1).unsqueeze(-2).contiguous() for m in maps]

    def nchw(x):
        return x.squeeze(-2).movedim(-1, 1)

    yield 'ours', criss_cross_attention, last, nchw
    yield 'einsum (mmcv formula)', _einsum_criss_cross, maps, lambda x: x


def criss_cross_layer(batch, height, width, channels, **kwargs):
    """Layer with projections and residual on a contiguous (B, C, H, W)."""
    ours = CrissCrossAttention(channels, gamma_init=0.7).to(**kwargs)
    x = torch.randn(batch, channels, height, width, **kwargs)
    yield 'ours', ours, [x], lambda y: y
    try:
        from mmcv.ops import CrissCrossAttention as MMCVCrissCrossAttention
    except ImportError as error:
        yield f'mmcv: not installed with ops ({error})', None, None, None
    else:
        peer = MMCVCrissCrossAttention(channels).to(**kwargs)
        peer.load_state_dict(ours.state_dict())
        yield 'mmcv', peer, [x.clone()], lambda y: y


CASES = {
    'criss_cross_operator': criss_cross_operator,
    'criss_cross_layer': criss_cross_layer,
}
