# Copyright (c) mmseg_attn contributors.
"""What ours is compared with, written from the papers' equations.

Each keeps the formulation of the published code: its layout, its order of
products, its intermediate tensors. Maps are (B, C, H, W) unless said
otherwise; "copies" take ours' layout (B, H, W, heads, dim).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from mmseg_attn import ops

# Operator -> name of a formula -> it, for those whose case is no more than
# ours and these. They take the operator's tensors as maps (B, C, H, W).
FORMULAS: dict[str, dict[str, Callable]] = {}


def formula(operator: str, name: str) -> Callable:
    """Have an operator compared with the decorated formula."""

    def add(function: Callable) -> Callable:
        FORMULAS.setdefault(operator, {})[name] = function
        return function

    return add


@formula('criss_cross_attention', 'einsum (mmcv formula)')
def einsum_criss_cross(query, key, value):
    """The formulation of mmcv's layer and the authors' pure PyTorch code.

    Einsum, -inf on the diagonal of the column scores, one softmax over the
    concatenated scores.
    """
    height = query.shape[2]
    own = torch.eye(height, dtype=torch.bool, device=query.device)
    column = torch.einsum('bchw,bcgw->bwhg', query, key)
    column = column.masked_fill(own, -torch.inf).transpose(1, 2)
    row = torch.einsum('bchw,bchv->bhwv', query, key)
    weights = F.softmax(torch.cat([column, row], -1), -1)
    out = torch.einsum('bcgw,bhwg->bchw', value, weights[..., :height])
    return out + torch.einsum('bchv,bhwv->bchw', value, weights[..., height:])


def einsum_axial(query, key, value):
    """Attention within each column."""
    scores = torch.einsum('bchw,bcgw->bwhg', query, key)
    return torch.einsum('bcgw,bwhg->bchw', value, scores.softmax(-1))


def sdpa_axial(query, key, value, *, attend=F.scaled_dot_product_attention):
    """Attention within each column, by torch's kernel on copied columns."""
    columns = (
        x.movedim(1, -2).flatten(0, 1).contiguous()
        for x in (query, key, value)
    )
    out = attend(*columns, scale=1.0)
    return out.unflatten(0, (len(query), -1)).movedim(-2, 1)


def channel_gate(channels):
    """The authors' gate: five hidden layers of C/4, no bias, a sigmoid."""
    widths = [channels, *[channels // 4] * 5, channels]
    layers = []
    for wide, narrow in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(wide, narrow, bias=False), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1], nn.Sigmoid())


def grouped_channelized_axial(query, key, value, *, gate, groups=16):
    """The authors' grouped vectorization of the column pass.

    For each group of output rows the products of weights and values, (rows,
    B, H, W, C), are built, pooled for the gate, gated and summed. In their
    layout, that of ours with one head.
    """
    query, key, value = (x.squeeze(-2) for x in (query, key, value))
    scores = torch.einsum('bhwc,bgwc->hbgw', query, key)
    outputs = []
    for rows in scores.softmax(2).split(max(1, len(scores) // groups)):
        products = rows.unsqueeze(-1) * value
        gates = _gates(
            gate, products.mean((2, 3), dtype=torch.float32), value.dtype
        )
        outputs.append((gates[:, :, None, None] * products).sum(2))
    return torch.cat(outputs).movedim(0, 1).unsqueeze(-2)


def sdpa_channelized_axial(query, key, value, *, gate):
    """The column pass factored as ours, on copied columns."""
    out = sdpa_axial(query, key, value)
    pooled = out.mean(2, dtype=torch.float32).flatten(-2) / out.shape[1]
    gates = _gates(gate, pooled, out.dtype)
    return out * gates.view(*out.shape[:2], 1, *out.shape[3:])


def _gates(gate, pooled, dtype):
    return gate(pooled).to(dtype)


def interlaced(query, key, value, query2, key2, *, partition=8, backend=None):
    """Ours called twice: the output of the long half is the short's value.

    Padded once, before the long half, as the official code does.
    """
    maps = (query, key, value, query2, key2)
    pads = pads_of(query.shape[1:3], partition)
    if any(pads):
        maps = [F.pad(x, (0, 0, 0, 0, *pads)) for x in maps]
    query, key, value, query2, key2 = maps
    given = dict(
        partition=(partition, partition),
        scale=query.shape[-1] ** -0.5,
        backend=backend,
    )
    attend = ops.interlaced_sparse_attention
    long = attend(query, key, value, span='long', **given)
    short = attend(query2, key2, long, span='short', **given)
    return crop(short, pads, 1)


def host_interlaced(query, key, value, query2, key2, *, partition=8):
    """The attention of mmseg's ISAHead.

    The head copies the C channels of a map into groups and projects there;
    given query, key and value, it is these 2C channels that are copied.
    """
    pads = pads_of(query.shape[2:], partition)
    halves = [
        F.pad(x, pads)
        .unflatten(3, (-1, partition))
        .unflatten(2, (-1, partition))
        for x in (query, key, value, query2, key2)
    ]  # (B, C, cell, place, cell, place)
    batch, channels, rows, _, columns, _ = halves[2].shape
    long = _attend_flat(
        *(x.permute(0, 3, 5, 1, 2, 4).flatten(0, 2) for x in halves[:3])
    )
    long = long.view(batch, partition, partition, channels, rows, columns)
    short = _attend_flat(
        *(x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2) for x in halves[3:]),
        long.permute(0, 4, 5, 3, 1, 2).flatten(0, 2),
    )
    short = short.view(batch, rows, columns, channels, partition, partition)
    out = short.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    return crop(out, pads, 2)


def _attend_flat(query, key, value):
    """Dense attention within maps (groups, C, h, w), scaled."""
    weights = query.flatten(2).mT.contiguous() @ key.flatten(2)
    weights = F.softmax(query.shape[1] ** -0.5 * weights, -1)
    out = weights @ value.flatten(2).mT.contiguous()
    return out.mT.contiguous().view_as(value)


def sdpa_interlaced(
    query,
    key,
    value,
    query2,
    key2,
    *,
    partition=8,
    attend=F.scaled_dot_product_attention,
):
    """Both halves by torch's kernel on copied groups of ours' layout."""
    pads = pads_of(query.shape[1:3], partition)
    halves = [
        F.pad(x, (0, 0, 0, 0, *pads))
        .unflatten(2, (-1, partition))
        .unflatten(1, (-1, partition))
        for x in (query, key, value, query2, key2)
    ]  # (B, cell, place, cell, place, heads, dim)
    to_long, to_short = (0, 2, 4, 5, 1, 3, 6), (0, 1, 3, 5, 2, 4, 6)
    back_long, back_short = (0, 4, 1, 5, 2, 3, 6), (0, 1, 4, 2, 5, 3, 6)
    query, key, value, query2, key2 = halves
    long = _attend_groups(attend, query, key, value, to_long)
    long = long.permute(back_long)
    short = _attend_groups(attend, query2, key2, long, to_short)
    short = short.permute(back_short)
    return crop(short.flatten(3, 4).flatten(1, 2), pads, 1)


def _attend_groups(attend, query, key, value, order):
    query, key, value = (x.permute(order) for x in (query, key, value))
    flat = (x.flatten(4, 5).flatten(0, 2) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5
    return attend(*flat, scale=scale).reshape(value.shape)


def pads_of(spatial, partition):
    """Before and behind, the last axis first, as F.pad wants them."""
    pads = [-n % partition for n in reversed(spatial)]
    return [half for pad in pads for half in (pad // 2, pad - pad // 2)]


def crop(x, pads, first):
    left, right, top, bottom = pads
    height, width = x.shape[first : first + 2]
    x = x.narrow(first, top, height - top - bottom)
    return x.narrow(first + 1, left, width - left - right)


def loop_efficient(query, key, value, *, heads):
    """The authors' module: a Python loop over the heads."""
    parts = (x.flatten(2).chunk(heads, 1) for x in (query, key, value))
    outputs = []
    for q, k, v in zip(*parts, strict=True):
        context = F.softmax(k, 2) @ v.mT
        outputs.append(context.mT @ F.softmax(q, 1))
    return torch.cat(outputs, 1).view_as(value)


def einsum_linear(query, key, value, *, softplus=False, eps=1e-6):
    """Linear attention as in its equation; softplus: MANet's kernel form."""
    query, key, flat = (x.flatten(2) for x in (query, key, value))
    if softplus:
        query, key = F.softplus(query), F.softplus(key)
        count, total = 0, 0
    else:
        query = query / query.norm(dim=1, keepdim=True)
        key = key / key.norm(dim=1, keepdim=True)
        count, total = flat.shape[-1], flat.sum(-1, keepdim=True)
    norm = count + torch.einsum('bmn,bm->bn', query, key.sum(-1) + eps)
    context = torch.einsum('bmn,bcn->bmc', key, flat)
    out = total + torch.einsum('bmn,bmc->bcn', query, context)
    return (out / norm.unsqueeze(1)).view_as(value)


@formula('channel_linear_attention', 'einsum (official)')
def einsum_channel_linear(value, *, eps=1e-6):
    """The channel form as the authors' code computes it."""
    x = value.flatten(2)
    unit = x / x.norm(dim=1, keepdim=True)
    norm = x.shape[-1] + torch.einsum('bcn,bn->bc', unit, unit.sum(1) + eps)
    affinity = torch.einsum('bcn,bdn->bcd', x, unit)
    out = x.sum(1, keepdim=True) + torch.einsum('bcd,bdn->bcn', affinity, unit)
    return (out / norm.unsqueeze(-1)).view_as(value)


def sdpa_non_local(
    query, key, value, *, attend=F.scaled_dot_product_attention
):
    """Attention of all to all, by torch's kernel, in ours' layout."""
    flat = (x.flatten(1, -3).transpose(1, 2) for x in (query, key, value))
    return attend(*flat, scale=1.0).transpose(1, 2).reshape(value.shape)


def plain_non_local(query, key, value):
    """Product, softmax, product: the affinity is a tensor."""
    query, key, flat = (x.flatten(2) for x in (query, key, value))
    weights = F.softmax(query.mT @ key, -1)
    return (flat @ weights.mT).view_as(value)


def bytes_of_groups(shape, itemsize):
    """That all groups of grouped_channelized_axial keep for the backward."""
    return shape[1] * math.prod(shape) * itemsize


class FirstHalf(torch.nn.Module):
    """The first half of the channels: the context that a head joins."""

    def forward(self, x):
        return x.chunk(2, 1)[0]


class OfOneMap(torch.nn.Module):
    """A decode head as a function of the one map that it takes."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head([x])
