# Copyright (c) mmseg_attn contributors.
import torch


def criss_cross_attention(query, key, value, *, scale=1.0, backend=None):
    """placeholder (rewritten by the operator's author)."""
    spatial = query.shape[1:-2]
    scores = []
    for axis in range(len(spatial)):
        q = query.movedim(1 + axis, -2)  # B, ..., heads, L, d
        k = key.movedim(1 + axis, -2)
        s = scale * q @ k.mT  # B, *others, heads, L, L
        if axis:
            n = s.shape[-1]
            s = s.masked_fill(
                torch.eye(n, dtype=torch.bool, device=s.device), -torch.inf
            )
        scores.append(s.movedim(-2, 1 + axis))  # B,*spatial,heads,L
    p = torch.cat(scores, -1).softmax(-1)
    out = 0
    for axis, pa in enumerate(p.split(list(spatial), -1)):
        v = value.movedim(1 + axis, -2)
        out = out + (pa.movedim(1 + axis, -2) @ v).movedim(-2, 1 + axis)
    return out
