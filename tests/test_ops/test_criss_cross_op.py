# Copyright (c) mmseg_attn contributors.
import itertools

import pytest
import torch

from mmseg_attn.ops import criss_cross_attention

BACKENDS = ['torch', 'reference']
SIZES_1D = [(1,), (7,)]
SIZES_2D = [(1, 1), (1, 6), (6, 1), (5, 5), (3, 8), (9, 4)]
SIZES_3D = [(1, 4, 3), (3, 1, 5), (2, 3, 1), (2, 3, 4), (4, 3, 2), (1, 1, 1)]


def qkv(spatial, heads=1, dim=3, value_dim=5, batch=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(
            batch, *spatial, heads, width, generator=generator, dtype=dtype
        ).requires_grad_()
        for width in (dim, dim, value_dim)
    ]


def brute_force(query, key, value, scale):
    """Loop over positions and their key sets, as the paper writes it."""
    spatial = query.shape[1:-2]
    positions = list(itertools.product(*map(range, spatial)))
    out = torch.empty_like(value)
    for b, u, h in itertools.product(
        range(len(query)), positions, range(query.shape[-2])
    ):
        keys = {
            (*u[:axis], i, *u[axis + 1 :])
            for axis, length in enumerate(spatial)
            for i in range(length)
        }
        assert len(keys) == sum(spatial) - len(spatial) + 1
        keys = sorted(keys)
        scores = torch.stack(
            [(query[b][u][h] * key[b][i][h]).sum() for i in keys]
        )
        weights = (scale * scores).softmax(0)
        out[b][u][h] = sum(
            w * value[b][i][h] for w, i in zip(weights, keys, strict=True)
        )
    return out


@pytest.mark.parametrize('heads', [1, 3])
@pytest.mark.parametrize('spatial', SIZES_1D + SIZES_2D + SIZES_3D, ids=str)
@pytest.mark.parametrize('backend', BACKENDS)
def test_equals_brute_force(spatial, heads, backend):
    q, k, v = qkv(spatial, heads)
    out = criss_cross_attention(q, k, v, scale=0.7, backend=backend)
    with torch.no_grad():
        expected = brute_force(q, k, v, 0.7)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def test_sums_of_a_large_map_in_half_precision():
    """65,536 equal positions: sums of exponentials beyond fp16's range."""
    x = torch.full((1, 256, 256, 1, 2), 3.0, dtype=torch.float16)
    x.requires_grad_()
    out = criss_cross_attention(x, x, x)
    torch.testing.assert_close(out, x.detach(), rtol=1e-3, atol=0)
    out.sum().backward()
    assert x.grad.isfinite().all()


def test_keeps_no_affinity_for_the_backward():
    """Saved: inputs, output, one number per position. Nothing (H + W)."""
    spatial, dim, value_dim = (24, 40), 4, 6
    q, k, v = qkv(spatial, dim=dim, value_dim=value_dim, batch=1)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: saved.append(x.numel()) or x, lambda x: x
    ):
        criss_cross_attention(q, k, v)
    positions = spatial[0] * spatial[1]
    assert sum(saved) == positions * (2 * dim + 2 * value_dim + 1)


def test_each_position_counts_once_in_any_number_of_axes():
    """With equal scores the output is the mean over the key set."""
    value = torch.zeros(1, 3, 4, 5, 1, 1)
    value[0, 1, 2, 3] = 1
    flat = torch.zeros_like(value)
    out = criss_cross_attention(flat, flat, value)[..., 0, 0]
    weight = 1 / (3 + 4 + 5 - 2)
    assert out[0, 1, 2, 3] == pytest.approx(weight)
    assert out[0, 0, 2, 3] == pytest.approx(weight)
    assert out[0, 0, 0, 3] == 0


@pytest.mark.parametrize('loops, reached', [(1, False), (2, True)])
def test_two_loops_reach_every_position(loops, reached):
    x = torch.randn(1, 4, 5, 1, 3, dtype=torch.float64, requires_grad=True)
    y = x
    for _ in range(loops):
        y = criss_cross_attention(x, x, y)
    (grad,) = torch.autograd.grad(y[0, 0, 0].sum(), x)
    touched = (grad != 0).any(-1)[0, ..., 0]
    assert touched.all() == reached
    assert touched[0].all() and touched[:, 0].all()


@pytest.mark.parametrize('spatial', [(4, 7), (2, 3, 4), (1, 5)], ids=str)
def test_compiles_and_exports(spatial):
    """The path that tracers see gives the same, with dynamic sizes."""

    class Module(torch.nn.Module):
        def forward(self, q, k, v):
            return criss_cross_attention(q, k, v)

    q, k, v = (x.detach() for x in qkv(spatial))
    sizes = {
        1 + axis: torch.export.Dim(f'n{axis}')
        for axis, length in enumerate(spatial)
        if length > 1
    }
    program = torch.export.export(
        Module(), (q, k, v), dynamic_shapes=(sizes, sizes, sizes)
    )
    other = tuple(n + 2 if n > 1 else n for n in spatial)
    for inputs in ((q, k, v), [x.detach() for x in qkv(other)]):
        torch.testing.assert_close(
            program.module()(*inputs), criss_cross_attention(*inputs)
        )
