# Copyright (c) mmseg_attn contributors.
"""Further peers, which are for GPUs or need a package more.

Each is a function (case, offers) that yields contestants beside those that
the case offers, ours being the first of these.
"""

from __future__ import annotations

import importlib
import warnings
from functools import partial

import fused
import peers
import torch
import torch.nn.functional as F
from measure import Contestant, Skipped, as_it_is, one_line, to_nchw

from mmseg_attn.ops import interlaced_sparse_attention
from mmseg_attn.ops.declare import OPERATORS

ATTENTION = {
    'axial': peers.sdpa_axial,
    'interlaced_sparse': peers.sdpa_interlaced,
    'non_local': peers.sdpa_non_local,
}


def compiled(case, offers):
    """The published formulas, fused by torch.compile."""
    for offer in offers:
        if isinstance(offer, Contestant) and offer.is_formula:
            yield Contestant(
                f'{offer.name}, compiled',
                torch.compile(offer.function, dynamic=False),
                [x.detach() for x in offer.inputs],
                as_it_is,
            )


def sdpa(case, offers):
    """torch's fused attention by each of its backends."""
    for backend in fused.BACKENDS:
        if case == 'criss_cross':
            function = partial(fused.criss_cross, backend=backend)
            name = f'SDPA merged, {backend}'
        elif case in ATTENTION:
            attend = partial(fused.attend, backend=backend)
            function = partial(ATTENTION[case], attend=attend)
            name = f'SDPA, {backend}'
        else:
            return
        yield _tried(name, function, offers[0])


def backends(case, offers):
    """Ours by each other backend that does not refuse."""
    ours = offers[0]
    declared = OPERATORS.get(f'{case}_attention')
    options = getattr(ours.function, 'keywords', {})
    if declared is None or case == 'interlaced_sparse':  # two calls
        return
    for name, backend in declared.backends.items():
        # The reference's affinity is that of all to all.
        if name != 'reference' and not backend.refuses(*ours.inputs):
            function = partial(declared.function, **options, backend=name)
            yield _tried(f'ours by {name}', function, ours)


def natten(case, offers):
    """Our long half, the windows of the short half by NATTEN."""
    if case != 'interlaced_sparse':
        return
    name = 'ours, then NATTEN'
    try:
        na2d = importlib.import_module('natten').na2d
    except ImportError as error:
        yield Skipped(name, f'not installed ({error})')
    else:
        function = partial(natten_interlaced, attend=na2d)
        yield _tried(name, function, offers[0])


PEERS = {
    'compiled': compiled,
    'sdpa': sdpa,
    'backends': backends,
    'natten': natten,
}


def natten_interlaced(query, key, value, query2, key2, *, attend, partition=8):
    """Layout and padding of :func:`peers.interlaced`.

    Args:
        attend: natten.na2d, of (B, H, W, heads, dim).
    """
    pads = peers.pads_of(query.shape[1:3], partition)
    query, key, value, query2, key2 = (
        F.pad(x, (0, 0, 0, 0, *pads))
        for x in (query, key, value, query2, key2)
    )
    dim = query.shape[-1]
    long = interlaced_sparse_attention(
        query,
        key,
        value,
        partition=(partition, partition),
        span='long',
        scale=dim**-0.5,
    )
    # It wants one width: parts of the value, each with the whole key.
    parts = long.flatten(3).unflatten(3, (-1, dim))
    query2, key2 = (
        x.expand(*x.shape[:3], parts.shape[3], dim).contiguous()
        for x in (query2, key2)
    )
    short = attend(
        query2, key2, parts, kernel_size=partition, stride=partition
    )
    return peers.crop(short.flatten(3).unsqueeze(3), pads, 1)


def _tried(name, function, ours):
    """A contestant on ours' numbers, or why torch refuses it."""
    contestant = Contestant(
        name,
        function,
        [x.detach().clone() for x in ours.inputs],
        to_nchw,
        ours.parameters,
        has_relu=ours.has_relu,
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        try:
            contestant.results()
        except Exception as error:
            # What scaled_dot_product_attention has to say are warnings.
            return Skipped(name, one_line(*(w.message for w in said), error))
    return contestant
