# Copyright (c) mmseg_attn contributors.
import itertools

import pytest
import torch

from mmseg_attn.ops import backends, criss_cross_attention

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


@pytest.mark.parametrize(
    'spatial', [(4,), (1, 5), (5, 1), (3, 4), (2, 3, 4)], ids=str
)
@pytest.mark.parametrize('heads', [1, 2])
def test_gradcheck(spatial, heads):
    q, k, v = qkv(spatial, heads, dim=2, value_dim=3, batch=2)
    assert torch.autograd.gradcheck(
        lambda *x: criss_cross_attention(*x, scale=0.6), (q, k, v)
    )


def grads(function, inputs, weight):
    out = function(*inputs)
    return out, *torch.autograd.grad((out * weight).sum(), inputs)


def relative_error(x, truth):
    return (x.double() - truth).abs().max() / truth.abs().max()


@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize('spatial', [(33, 17), (8, 65), (5, 6, 7)], ids=str)
def test_error_of_each_dtype(spatial, dtype):
    """At most twice (gradients: thrice) that of the reference in the dtype.

    The truth is the reference in float64 on the same rounded inputs.
    """
    exact = [
        x.detach().to(dtype).double().requires_grad_()
        for x in qkv(spatial, heads=2, dim=16, value_dim=24)
    ]
    torch.manual_seed(0)
    weight = torch.randn(exact[2].shape, dtype=torch.float64)
    weight = weight.to(dtype).double()
    low = [x.detach().to(dtype).requires_grad_() for x in exact]

    def run(inputs, backend):
        return grads(
            lambda *x: criss_cross_attention(*x, backend=backend),
            inputs,
            weight.to(inputs[0].dtype),
        )

    truth = run(exact, 'reference')
    ours, theirs = run(low, 'torch'), run(low, 'reference')
    for i, (a, b, t) in enumerate(zip(ours, theirs, truth, strict=True)):
        assert a.dtype == dtype
        limit = (3 if i else 2) * relative_error(b, t)
        assert relative_error(a, t) <= limit + torch.finfo(dtype).eps


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_extreme_scores_stay_finite(dtype):
    q, k, v = qkv((6, 9), dim=4, dtype=torch.float32)
    for factor in (0.0, 50.0):  # 50 * 50 * |q k|: scores of about 1e4
        inputs = [
            (x * f).detach().to(dtype).requires_grad_()
            for x, f in ((q, factor), (k, factor), (v, 1))
        ]
        for x in grads(criss_cross_attention, inputs, torch.ones(())):
            assert x.isfinite().all()


def test_sums_of_a_large_map_in_half_precision():
    """65,536 equal positions: sums of exponentials beyond fp16's range."""
    x = torch.full((1, 256, 256, 1, 2), 3.0, dtype=torch.float16)
    x.requires_grad_()
    out = criss_cross_attention(x, x, x)
    torch.testing.assert_close(out, x.detach(), rtol=1e-3, atol=0)
    out.sum().backward()
    assert x.grad.isfinite().all()


def test_blocks_do_not_change_the_result(monkeypatch):
    """Lines in many small blocks, as large maps have, give the same."""
    q, k, v = qkv((12, 10), heads=2)
    weight = torch.randn(v.shape, dtype=v.dtype)
    whole = grads(criss_cross_attention, (q, k, v), weight)
    monkeypatch.setattr('mmseg_attn.ops._axis._CPU_BLOCK', 500)
    blocks = grads(criss_cross_attention, (q, k, v), weight)
    for a, b in zip(blocks, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize('layout', ['padded', 'permuted', 'expanded'])
def test_strided_inputs(layout):
    q, k, v = (x.detach() for x in qkv((5, 6)))
    expected = criss_cross_attention(q, k, v)
    if layout == 'padded':  # split from one wider projection
        q, k, v = torch.cat([q, k, v], -1).split([3, 3, 5], -1)
    elif layout == 'permuted':  # a projected (B, C, H, W) map
        q, k, v = (
            x.squeeze(-2)
            .movedim(-1, 1)
            .contiguous()
            .movedim(1, -1)
            .unsqueeze(-2)
            for x in (q, k, v)
        )
    else:
        q, k, v = (x[:1].expand(2, -1, -1, -1, -1) for x in (q, k, v))
        expected = expected[:1].expand(2, -1, -1, -1, -1)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    out = criss_cross_attention(*inputs)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    # A gradient that is no plain tensor either.
    torch.autograd.grad(out.sum(), inputs)


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


def test_autocast_keeps_the_sums_wide():
    q, k, v = (x.detach().bfloat16().requires_grad_() for x in qkv((7, 9)))
    plain = grads(criss_cross_attention, (q, k, v), torch.ones(()))
    with torch.autocast('cpu', torch.bfloat16):
        out = criss_cross_attention(q, k, v)
    mixed = out, *torch.autograd.grad(out.sum(), (q, k, v))
    for a, b in zip(mixed, plain, strict=True):
        assert torch.equal(a, b)


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


def test_is_fullgraph_compilable():
    compiled = torch.compile(
        criss_cross_attention, fullgraph=True, backend='aot_eager'
    )
    q, k, v = qkv((4, 7))
    weight = torch.randn(v.shape, dtype=v.dtype)
    expected = grads(criss_cross_attention, (q, k, v), weight)
    got = grads(compiled, (q, k, v), weight)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_double_backward_is_refused_and_possible_by_the_reference():
    q, k, v = qkv((2, 3))
    out = criss_cross_attention(q, k, v)
    with pytest.raises(RuntimeError, match="backend='reference'"):
        torch.autograd.grad(out.sum(), q, create_graph=True)
    assert torch.autograd.gradgradcheck(
        lambda *x: criss_cross_attention(*x, backend='reference'), (q, k, v)
    )


def test_backends_are_declared():
    table = backends()['criss_cross_attention']
    assert list(table) == BACKENDS
    assert all(reason is None for reason in table.values())


def change(index, function):
    inputs = [x.detach() for x in qkv((4, 5))]
    inputs[index] = function(inputs[index])
    return inputs


@pytest.mark.parametrize(
    'inputs, error, message',
    [
        (change(1, lambda x: x[..., :2]), ValueError, r'\(2, 4, 5, 1, 2\)'),
        (change(2, lambda x: x[:, :3]), ValueError, r'\(2, 3, 5, 1, 5\)'),
        (change(0, lambda x: x[0]), ValueError, 'same rank'),
        ([x[0, 0] for x in change(0, abs)], ValueError, r'\(B, \*spatial'),
        (change(1, lambda x: x.float()), TypeError, 'float32'),
        ([x.long() for x in change(0, abs)], TypeError, 'int64'),
        (change(2, lambda x: x.numpy()), TypeError, 'ndarray'),
        ([x[:, :0] for x in change(0, abs)], ValueError, 'empty'),
        ([x[..., :0] for x in change(0, abs)], ValueError, 'empty'),
        (change(1, lambda x: x.to('meta')), ValueError, 'meta'),
    ],
)
def test_bad_inputs_are_explained(inputs, error, message):
    with pytest.raises(error, match=message):
        criss_cross_attention(*inputs)


@pytest.mark.parametrize('scale', [torch.ones(()), None, '1'])
def test_scale_that_is_no_number_is_refused(scale):
    with pytest.raises(TypeError, match='multiply the query'):
        criss_cross_attention(*qkv((2, 3)), scale=scale)


def test_unknown_backend_lists_the_known():
    with pytest.raises(ValueError, match="'cuda'.*'torch', 'reference'"):
        criss_cross_attention(*qkv((2, 3)), backend='cuda')


def test_backend_that_cannot_run_says_why(monkeypatch):
    from mmseg_attn.ops import _backends

    table = {'fast': _backends.Backend(print, lambda: 'no such chip')}
    monkeypatch.setitem(_backends._OPERATORS, 'toy', table)
    with pytest.raises(RuntimeError, match='no such chip'):
        _backends.select('toy', 'fast')
