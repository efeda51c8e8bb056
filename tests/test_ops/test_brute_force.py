# Copyright (c) mmseg_attn contributors.
"""The papers' sums written as loops over positions, against all backends."""

import gc
import itertools
import weakref

import pytest
import torch
import torch.nn.functional as F

from mmseg_attn.ops import (
    axial_attention,
    channel_linear_attention,
    channelized_axial_attention,
    efficient_attention,
    interlaced_sparse_attention,
    linear_attention,
    non_local_attention,
)

BACKENDS = pytest.mark.parametrize('backend', ['torch', 'reference'])


def qkv(spatial, dim=3, value_dim=4, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(
            batch, *spatial, 1, n, generator=generator, dtype=torch.float64
        )
        for n in (dim, dim, value_dim)
    ]


def over_keys(query, key, value, keys_of, scale=1.0):
    """Softmax attention of each position u over the list keys_of(u).

    A key outside the grid is a zero with a zero for its value.
    """
    spatial = query.shape[1:-2]
    out = torch.empty_like(value)
    none = query.new_zeros(())
    for u in itertools.product(*map(range, spatial)):
        keys = keys_of(u)
        inside = [
            all(0 <= i < n for i, n in zip(k, spatial, strict=True))
            for k in keys
        ]
        for b in range(len(query)):
            scores = torch.stack(
                [
                    (query[b][u] * key[b][k]).sum() if real else none
                    for k, real in zip(keys, inside, strict=True)
                ]
            )
            weights = (scale * scores).softmax(0)
            out[b][u] = sum(
                w * value[b][k]
                for w, k, real in zip(weights, keys, inside, strict=True)
                if real
            )
    return out


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@BACKENDS
@pytest.mark.parametrize('axis', [0, 1, 2, -1])
def test_axial_attention(axis, backend):
    q, k, v = qkv((2, 4, 3))

    def line(u):
        place = axis % 3
        length = q.shape[1 + place]
        return [(*u[:place], i, *u[place + 1 :]) for i in range(length)]

    got = axial_attention(q, k, v, axis=axis, scale=0.7, backend=backend)
    close(got, over_keys(q, k, v, line, 0.7))


def group(u, span, spatial, partition, padding):
    """Keys of a position: same place in all cells, or its own cell."""
    before = [(-n % p) // 2 for n, p in zip(spatial, partition, strict=True)]
    axes = []
    for i, n, p, pad in zip(u, spatial, partition, before, strict=True):
        padded = range(-pad, n + -n % p - pad)
        mark = (
            (lambda j, p=p, pad=pad: (j + pad) % p)
            if span == 'long'
            else (lambda j, p=p, pad=pad: (j + pad) // p)
        )
        axes.append([j for j in padded if mark(j) == mark(i)])
    keys = list(itertools.product(*axes))
    if padding == 'attend':
        return keys
    return [
        k
        for k in keys
        if all(0 <= j < n for j, n in zip(k, spatial, strict=True))
    ]


@BACKENDS
@pytest.mark.parametrize('padding', ['attend', 'mask'])
@pytest.mark.parametrize('span', ['long', 'short'])
@pytest.mark.parametrize(
    'spatial, partition',
    [((4, 6), (2, 3)), ((5, 7), (3, 4)), ((1, 5), (4, 2)), ((7,), (3,))],
)
def test_interlaced_sparse_attention(
    spatial, partition, span, padding, backend
):
    q, k, v = qkv(spatial)
    got = interlaced_sparse_attention(
        q,
        k,
        v,
        partition=partition,
        span=span,
        padding=padding,
        scale=0.6,
        backend=backend,
    )
    expected = over_keys(
        q, k, v, lambda u: group(u, span, spatial, partition, padding), 0.6
    )
    close(got, expected)


def test_long_then_short_is_the_global_mean_for_equal_scores():
    """Every output sees every input, where the partition divides the grid."""
    _, _, v = qkv((6, 8))
    flat = torch.zeros_like(v)
    for span in ('long', 'short'):
        v = interlaced_sparse_attention(
            flat, flat, v, partition=(3, 4), span=span
        )
    close(v, v.mean((1, 2), keepdim=True).expand(v.shape))


@BACKENDS
def test_non_local_attention(backend):
    q, k, v = qkv((3, 4))
    everywhere = list(itertools.product(range(3), range(4)))
    got = non_local_attention(q, k, v, scale=0.7, backend=backend)
    close(got, over_keys(q, k, v, lambda u: everywhere, 0.7))


def vectors(x):
    """(B, *spatial, 1, dim) to (B, n, dim)."""
    return x.flatten(1, -2)


@BACKENDS
def test_efficient_attention(backend):
    q, k, v = map(vectors, qkv((3, 4)))
    heat = [k[:, :, c].exp() for c in range(k.shape[-1])]
    contexts = [
        (h[..., None] * v).sum(1) / h.sum(1, keepdim=True) for h in heat
    ]
    share = q.exp() / q.exp().sum(-1, keepdim=True)
    expected = sum(
        share[..., c, None] * context[:, None]
        for c, context in enumerate(contexts)
    )
    got = efficient_attention(*qkv((3, 4)), backend=backend)
    close(vectors(got), expected)


@BACKENDS
@pytest.mark.parametrize('divisor', [None, 2.5])
def test_efficient_attention_by_scaling(divisor, backend):
    """Exactly dot-product attention divided by a number."""
    q, k, v = map(vectors, qkv((3, 4)))
    expected = (q @ k.mT) @ v / (divisor or 12)
    got = efficient_attention(
        *qkv((3, 4)),
        normalization='scaling',
        divisor=divisor,
        backend=backend,
    )
    close(vectors(got), expected)


@BACKENDS
def test_contexts_of_keys_from_another_grid(backend):
    """The paper's divisor is their number; so many are summed over."""
    q, (_, k, v) = qkv((3, 4))[0], qkv((5, 2, 3))
    queries, keys, values = map(vectors, (q, k, v))
    got = efficient_attention(
        q, k, v, normalization='scaling', backend=backend
    )
    close(vectors(got), (queries @ keys.mT) @ values / 30)
    got = efficient_attention(q, k, v, backend=backend)
    weights = queries.softmax(-1) @ keys.softmax(1).mT
    close(vectors(got), weights @ values)
    got = linear_attention(q, k, v, eps=0, backend=backend)
    unit = F.normalize(queries, dim=-1), F.normalize(keys, dim=-1)
    weights = 1 + unit[0] @ unit[1].mT
    weights = weights / weights.sum(-1, keepdim=True)
    close(vectors(got), weights @ values)


@BACKENDS
@pytest.mark.parametrize('options', [{}, dict(variant='official', eps=0.3)])
def test_channel_attention_of_the_authors(options, backend):
    """Counts positions, scales pixels, and mixes by what is not scaled."""
    _, _, x = qkv((3, 4))
    eps = options.get('eps', 1e-6)
    expected = torch.empty_like(vectors(x))
    for b, pixels in enumerate(vectors(x)):  # (n, C)
        unit = torch.stack([pixel / pixel.norm() for pixel in pixels])
        for c in range(4):
            mixed = sum(
                pixels[:, d] + (pixels[:, c] @ unit[:, d]) * unit[:, d]
                for d in range(4)
            )
            alike = sum(unit[i, c] * (unit[i].sum() + eps) for i in range(12))
            expected[b, :, c] = mixed / (12 + alike)
    got = channel_linear_attention(x, backend=backend, **options)
    close(vectors(got), expected)


@BACKENDS
@pytest.mark.parametrize('feature_map', ['taylor', 'softplus'])
def test_linear_attention(feature_map, backend):
    q, k, v = map(vectors, qkv((3, 4)))
    eps = 1e-3
    if feature_map == 'taylor':
        q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    else:
        q, k = (1 + q.exp()).log(), (1 + k.exp()).log()
    expected = torch.empty_like(v)
    for b, i in itertools.product(range(len(q)), range(q.shape[1])):
        similar = [
            (q[b, i] * k[b, j]).sum() + (feature_map == 'taylor')
            for j in range(12)
        ]
        total = sum(similar) + eps * q[b, i].sum()
        expected[b, i] = (
            sum(s * v[b, j] for j, s in enumerate(similar)) / total
        )
    got = linear_attention(
        *qkv((3, 4)), feature_map=feature_map, eps=eps, backend=backend
    )
    close(vectors(got), expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('dim', [1, 8])
def test_query_against_all_keys_stays_within_the_values(dim, dtype):
    """Its weights 1 + cos are 0, and what is left of them is rounding."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(dim, generator=generator, dtype=dtype)
    k = direction.expand(1, 13, 9, 1, dim).contiguous()
    v = torch.randn(1, 13, 9, 1, 16, generator=generator, dtype=dtype)
    q = (-k).requires_grad_()
    out = linear_attention(q, k, v)
    assert out.abs().max() < 2 * v.abs().max()
    out.sum().backward()
    assert q.grad.isfinite().all()


def test_linear_attention_of_zero_vectors_is_the_mean():
    q, k, v = qkv((3, 4))
    q, k = (torch.zeros_like(x).requires_grad_() for x in (q, k))
    out = linear_attention(q, k, v)
    close(vectors(out), vectors(v).mean(1, keepdim=True).expand(2, 12, 4))
    out.square().sum().backward()
    assert q.grad.isfinite().all() and k.grad.isfinite().all()


def test_corrected_channel_attention_is_that_of_channels_as_positions():
    """The mirror image: linear attention of (C, n) instead of (n, C)."""
    _, _, x = qkv((3, 4))
    channels = vectors(x).mT[:, :, None]  # (B, C positions, 1 head, n)
    expected = linear_attention(channels, channels, channels)
    got = channel_linear_attention(x, variant='corrected')
    close(vectors(got), expected.squeeze(-2).mT)


def gate_of_paper(channels):
    """Gate with the paper's form: linear maps without bias, a sigmoid."""
    torch.manual_seed(0)
    first = torch.randn(channels, 3, dtype=torch.float64)
    last = torch.randn(3, channels, dtype=torch.float64)
    return lambda pooled: (
        F.leaky_relu(5 * pooled @ first, 0.2) @ last
    ).sigmoid()


def grouped_vectorization(query, key, value, gate, axis, groups):
    """The author's form: weights times values in five dimensions, gated.

    Output lines go in groups; the products are gated before they are summed.
    (B, H, W, C) with one head.
    """
    q, k, v = (x.squeeze(-2) for x in (query, key, value))
    if axis == 1:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    weights = torch.einsum('biwc,bjwc->bwij', q, k).softmax(-1)
    lines = []
    for rows in torch.arange(q.shape[1]).tensor_split(groups):
        products = torch.einsum('bwij,bjwc->bijwc', weights[:, :, rows], v)
        gates = gate(products.mean((2, 3)))
        lines.append((gates[:, :, None, None] * products).sum(2))
    out = torch.cat(lines, 1)
    return (out.transpose(1, 2) if axis == 1 else out).unsqueeze(-2)


@BACKENDS
@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('groups', [1, 2, 5])
def test_channelized_axial_attention(axis, groups, backend):
    """Output and gradients, the gate's included."""
    q, k, v = (x.requires_grad_() for x in qkv((5, 6)))
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    inner = gate_of_paper(4)

    def gate(pooled):
        return inner(factor * pooled)

    weight = torch.randn(v.shape, dtype=torch.float64)
    results = []
    for out in (
        grouped_vectorization(q, k, v, gate, axis, groups),
        channelized_axial_attention(q, k, v, gate, axis=axis, backend=backend),
    ):
        grads = torch.autograd.grad((out * weight).sum(), (q, k, v, factor))
        results.append((out, *grads))
    for a, b in zip(*results, strict=True):
        close(b, a)
    assert results[0][-1].abs() > 1e-3  # the gate matters


def test_gate_in_memory_of_others_is_guarded():
    """Changing the gate before the backward is an error, as everywhere."""
    q, k, v = (x.requires_grad_() for x in qkv((4, 5)))
    gate = torch.rand(2, 4, 4, dtype=torch.float64)
    out = channelized_axial_attention(q, k, v, lambda pooled: gate, axis=0)
    gate.zero_()
    with pytest.raises(RuntimeError, match='modified by an inplace'):
        out.sum().backward()


@BACKENDS
def test_pool_of_a_gate_may_have_a_loss_of_its_own(backend):
    """Before, and instead of, a loss of the gated attention."""
    q, k, v = (x.requires_grad_() for x in qkv((4, 5)))
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    kept = []

    def gate(pooled):
        kept.append(pooled)
        return (factor * pooled).sigmoid()

    out = channelized_axial_attention(q, k, v, gate, axis=0, backend=backend)
    plain = axial_attention(q, k, v, axis=0)
    pool = plain.mean(2).flatten(2) / 4
    expected = torch.autograd.grad(pool.square().sum(), (q, v))
    got = torch.autograd.grad(kept[0].square().sum(), (q, v))
    for a, b in zip(got, expected, strict=True):
        close(a, b)
    (of_factor,) = torch.autograd.grad(out.square().sum(), factor)
    gated = plain.detach() * (factor * pool.detach()).sigmoid().view(
        2, 4, 1, 1, 4
    )
    (want,) = torch.autograd.grad(gated.square().sum(), factor)
    close(of_factor, want)


def test_gated_attention_is_freed():
    """Neither with nor without a backward does the graph hold itself."""
    for backward in (True, False):
        q, k, v = (x.requires_grad_() for x in qkv((4, 5)))
        kept = []

        def gate(pooled, kept=kept):
            kept.append(weakref.ref(pooled.grad_fn))
            return pooled.sigmoid()

        out = channelized_axial_attention(q, k, v, gate, axis=0)
        if backward:
            out.sum().backward()
        del out
        gc.collect()
        assert kept[0]() is None
