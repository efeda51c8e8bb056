# Copyright (c) mmseg_attn contributors.
"""What is compared: our operators and layers, and their peers.

A case is a function (batch, height, width, channels, **kwargs of a tensor)
that yields contestants on the same numbers, ours first. One that cannot run
is yielded as Skipped, with the reason. The shapes are the operators' own
declarations of the papers' widths. Ours need torch alone, the peers of layers
the hosts.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import peers
import torch
from host import criss_cross_layer as criss_cross_layer_of_host
from measure import Contestant, Skipped, as_it_is, to_nchw

from mmseg_attn.layers import CrissCrossAttention, InterlacedSparseAttention
from mmseg_attn.ops.declare import OPERATORS

GROUPS_LIMIT = 4 * 2**30
AFFINITY_LIMIT = 2 * 2**30


def copies(maps):
    return [x.clone() for x in maps]


def nchw_copies(maps):
    return [to_nchw(x).contiguous() for x in maps]


def _ours(name, sizes, kwargs, options=None, **changes):
    """Our operator on its declared benchmark, or on a change of that."""
    operator = OPERATORS[name]
    case = replace(operator.benchmark(*sizes), **changes)
    options = case.options if options is None else options
    inputs = operator.inputs(case, **kwargs)
    itemsize = inputs[0].element_size()
    return Contestant(
        'ours',
        partial(operator.function, **options),
        inputs,
        to_nchw,
        work=(operator.flops(case), operator.bytes(case, itemsize)),
    )


def _nchw(name, formula, ours, scores=0.0):
    maps = nchw_copies(ours.inputs)
    return Contestant(
        name, formula, maps, as_it_is, scores=scores, is_formula=True
    )


def _copies(name, function, ours, parameters=(), scores=0.0):
    return Contestant(
        name,
        function,
        copies(ours.inputs),
        to_nchw,
        parameters,
        has_relu=ours.has_relu,
        scores=scores,
    )


def _largest_score(ours):
    """About: of normal numbers, six standard deviations."""
    return 6 * ours.inputs[0].shape[-1] ** 0.5


def _with_formulas(operator, *sizes, **kwargs):
    ours = _ours(operator, sizes, kwargs)
    yield ours
    for name, formula in peers.FORMULAS[operator].items():
        yield _nchw(name, formula, ours)


def criss_cross_layer(batch, height, width, channels, **kwargs):
    """Layer with projections and residual on a contiguous (B, C, H, W)."""
    ours = CrissCrossAttention(channels, gamma_init=0.7)
    ours.to(**of_parameters(kwargs))
    x = torch.randn(batch, channels, height, width, **kwargs)
    yield Contestant('ours', ours, [x], as_it_is)
    try:
        peer = criss_cross_layer_of_host()(channels).to(x.device)
    except ImportError as error:
        yield Skipped('mmcv', f'not installed ({error})')
        return
    peer.load_state_dict(ours.state_dict())
    if x.element_size() == 4:
        peer.to(**of_parameters(kwargs))
        yield Contestant('mmcv', peer, [x.clone()], as_it_is)
    else:  # it adds a mask of fp32 to its scores, so that it fails in others
        with torch.autocast(x.device.type, x.dtype):
            name = 'mmcv under autocast'
            yield Contestant(name, peer, [x.clone()], as_it_is)


def of_parameters(kwargs):
    """Keyword arguments of a map for a module: within autocast in fp32."""
    device = torch.device(kwargs.get('device', 'cpu')).type
    if device != 'meta' and torch.is_autocast_enabled(device):
        return {**kwargs, 'dtype': torch.float32}
    return kwargs


def axial(*sizes, **kwargs):
    ours = _ours('axial_attention', sizes, kwargs)
    yield ours
    yield _nchw('einsum', peers.einsum_axial, ours)
    yield _copies('SDPA on copies', peers.sdpa_axial, ours)


def channelized_axial(*sizes, **kwargs):
    """The column pass, with one gate module in fp32 for all."""
    gate = peers.channel_gate(sizes[-1]).to(kwargs.get('device'))
    parameters = tuple(gate.parameters())
    ours = _ours(
        'channelized_axial_attention',
        sizes,
        kwargs,
        options=dict(axis=0, channel_gate=gate),
    )
    ours.parameters = parameters
    ours.has_relu = True
    yield ours
    name = 'grouped (official)'
    value = ours.inputs[-1]
    needed = peers.bytes_of_groups(value.shape, value.element_size())
    if needed > GROUPS_LIMIT:
        yield Skipped(name, f'its groups need {needed / 2**30:.1f} GiB')
    else:
        grouped = partial(peers.grouped_channelized_axial, gate=gate)
        scores = _largest_score(ours)
        yield _copies(name, grouped, ours, parameters, scores)
    sdpa = partial(peers.sdpa_channelized_axial, gate=gate)
    yield _copies('SDPA on copies', sdpa, ours, parameters)


def interlaced_sparse(*sizes, **kwargs):
    """Long, then short; the long's output is the short's value."""
    operator = OPERATORS['interlaced_sparse_attention']
    case = operator.benchmark(*sizes)
    partition = case.options['partition'][0]
    flops = sum(
        operator.flops(replace(case, options={**case.options, 'span': span}))
        for span in ('long', 'short')
    )
    inputs = operator.inputs(case, **kwargs)
    inputs += operator.inputs(case, **kwargs)[:2]
    moved = 2 * operator.bytes(case, inputs[0].element_size())
    halves = partial(peers.interlaced, partition=partition)
    ours = Contestant('ours', halves, inputs, to_nchw, work=(flops, moved))
    yield ours
    host = partial(peers.host_interlaced, partition=partition)
    yield _nchw('mmseg ISAHead formula', host, ours)
    sdpa = partial(peers.sdpa_interlaced, partition=partition)
    yield _copies('SDPA on copies', sdpa, ours)


def interlaced_layer(batch, height, width, channels, **kwargs):
    """Both blocks with their projections, in training."""
    ours = InterlacedSparseAttention(channels, channels // 2)
    ours.to(**of_parameters(kwargs))
    x = torch.randn(batch, channels, height, width, **kwargs)
    yield Contestant('ours', ours, [x], as_it_is, has_relu=True)
    name = 'mmseg ISAHead blocks'
    try:
        from mmseg.models.decode_heads import ISAHead
    except ImportError as error:
        yield Skipped(name, f'not installed ({error})')
        return
    head = ISAHead(
        channels // 2,
        (8, 8),
        in_channels=channels,
        channels=channels,
        norm_cfg=dict(type='BN'),
        num_classes=2,
    )
    # What the head does before and after its blocks.
    head.in_conv = head.conv_seg = torch.nn.Identity()
    head.out_conv = peers.FirstHalf()
    head.dropout = None
    head.to(**of_parameters(kwargs)).load_state_dict(ours.state_dict())
    blocks = peers.OfOneMap(head)
    yield Contestant(name, blocks, [x.clone()], as_it_is, has_relu=True)


def _efficient(heads, batch, height, width, channels, **kwargs):
    ours = _ours(
        'efficient_attention',
        (batch, height, width, channels),
        kwargs,
        heads=heads,
        dim=channels // 2 // heads,
        value_dim=channels // heads,
    )
    yield ours
    loop = partial(peers.loop_efficient, heads=heads)
    yield _nchw('loop over heads (official)', loop, ours)


def _linear(feature_map, *sizes, **kwargs):
    options = dict(feature_map=feature_map)
    ours = _ours('linear_attention', sizes, kwargs, options)
    yield ours
    einsum = partial(peers.einsum_linear, softplus=feature_map == 'softplus')
    yield _nchw('einsum (official)', einsum, ours)


def non_local(batch, height, width, channels, **kwargs):
    """torch's scaled_dot_product_attention, the yardstick."""
    sizes = (batch, height, width, channels)
    ours = _ours('non_local_attention', sizes, kwargs)
    yield ours
    name = 'matmul, softmax, matmul'
    needed = 4 * batch * math.prod((height, width)) ** 2
    if needed > AFFINITY_LIMIT:
        yield Skipped(name, f'affinity of {needed / 2**30:.1f} GiB')
    else:
        scores = _largest_score(ours)
        yield _nchw(name, peers.plain_non_local, ours, scores)


CASES = {
    name.removesuffix('_attention'): partial(_with_formulas, name)
    for name in peers.FORMULAS
}
CASES |= {
    'criss_cross_layer': criss_cross_layer,
    'axial': axial,
    'channelized_axial': channelized_axial,
    'interlaced_sparse': interlaced_sparse,
    'interlaced_layer': interlaced_layer,
    'efficient_1_head': partial(_efficient, 1),
    'efficient_8_heads': partial(_efficient, 8),
    'linear': partial(_linear, 'taylor'),
    'linear_softplus': partial(_linear, 'softplus'),
    'non_local': non_local,
}
