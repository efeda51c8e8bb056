# Copyright (c) mmseg_attn contributors.
import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mmseg_attn.layers import CrissCrossAttention
from mmseg_attn.ops import criss_cross_attention


def double_layer(channels=16, spatial_dims=2, **kwargs):
    torch.manual_seed(0)
    layer = CrissCrossAttention(
        channels, spatial_dims=spatial_dims, gamma_init=0.7, **kwargs
    )
    return layer.double()


@pytest.mark.parametrize('loops', [1, 2])
def test_equals_the_authors_code(golden, loops):
    """Output and every gradient, with their state dict as it is."""
    name = {1: 'ccnet_cca_32_9x13', 2: 'ccnet_rcca2_16_12x5'}[loops]
    data = golden(name)
    layer = CrissCrossAttention(data['x'].shape[1]).double()
    state = {k[2:]: v for k, v in data.items() if k.startswith('p.')}
    assert state['gamma'].shape == (1,) and state['gamma'] != 0
    layer.load_state_dict(state)
    x = data['x'].requires_grad_()
    y = x
    for _ in range(loops):
        y = layer(y)
    (y * data['w']).sum().backward()
    close = dict(rtol=0, atol=1e-9)
    torch.testing.assert_close(y, data['y'], **close)
    torch.testing.assert_close(x.grad, data['gx'], **close)
    for key, parameter in layer.named_parameters():
        expected = data[f'g.{key.removesuffix(".scale")}']
        torch.testing.assert_close(
            parameter.grad, expected.reshape(parameter.shape), **close
        )


def test_equals_its_formula():
    """gamma times the attention of plain convolutions, plus the input."""
    layer = double_layer()
    x = torch.randn(2, 16, 5, 8, dtype=torch.float64)
    q, k, v = (
        conv(x).movedim(1, -1).unsqueeze(-2)
        for conv in (layer.query_conv, layer.key_conv, layer.value_conv)
    )
    out = criss_cross_attention(q, k, v, backend='reference')
    expected = x + layer.gamma.scale * out.squeeze(-2).movedim(-1, 1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('plain', [False, True])
@pytest.mark.parametrize(
    'spatial, axis', [((5, 8), 0), ((5, 8), 1), ((3, 4, 5), 1)], ids=str
)
def test_axial_attention_along_one_axis(spatial, axis, plain, monkeypatch):
    """Softmax over the line of each position, written out, and gradients."""
    if plain:
        monkeypatch.setattr(
            'mmseg_attn.layers.criss_cross.can_fuse', lambda _: False
        )
    layer = double_layer(spatial_dims=len(spatial), axis=axis)
    x = torch.randn(2, 16, *spatial, dtype=torch.float64, requires_grad=True)
    query, key, value = (
        conv(x).movedim(2 + axis, -1)  # the line last
        for conv in (layer.query_conv, layer.key_conv, layer.value_conv)
    )
    scores = torch.einsum('bc...i,bc...j->b...ij', query, key)
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    attended = torch.einsum('b...ij,bc...j->bc...i', weights, value)
    expected = x + layer.gamma.scale * attended.movedim(-1, 2 + axis)
    found = layer(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    tensors = [x, *layer.parameters()]
    grads = (
        torch.autograd.grad(y.square().sum(), tensors)
        for y in (found, expected)
    )
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_axial_attention_has_the_same_parameters():
    """+V, +H and criss-cross attention start from one state dict."""
    layer, columns = double_layer(), double_layer(axis=0)
    columns.load_state_dict(layer.state_dict())
    x = torch.randn(1, 16, 6, 7, dtype=torch.float64)
    weight = torch.zeros(1, 6, 7, dtype=torch.float64)
    weight[0, 2, 3] = 1
    seen = columns.trace_attention(x, weight)[0] > 0
    assert seen[:, 3].all() and seen.sum() == 6
    assert 'axis=0' in repr(columns) and 'axis' not in repr(layer)
    # Of one column it is criss-cross attention.
    torch.testing.assert_close(columns(x[..., :1]), layer(x[..., :1]))
    compiled = torch.compile(columns, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), columns(x))


def test_a_clip_of_one_frame_equals_the_picture():
    flat, clip = double_layer(), double_layer(spatial_dims=3)
    clip.load_state_dict(
        {
            k: v.unsqueeze(2) if v.ndim == 4 else v
            for k, v in flat.state_dict().items()
        }
    )
    x = torch.randn(2, 16, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(clip(x[:, :, None])[:, :, 0], flat(x))


@pytest.mark.parametrize('spatial', [(5, 8), (3, 4, 5)], ids=str)
def test_memory_format_is_kept_and_changes_nothing(spatial):
    layer = double_layer(spatial_dims=len(spatial))
    x = torch.randn(2, 16, *spatial, dtype=torch.float64)
    last = {2: torch.channels_last, 3: torch.channels_last_3d}[len(spatial)]
    results = []
    for inputs in (x, x.contiguous(memory_format=last)):
        inputs = inputs.detach().requires_grad_()
        out = layer(inputs)
        assert out.stride() == inputs.stride()
        (grad,) = torch.autograd.grad(out.square().sum(), inputs)
        results.append((out, grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_gradcheck_of_the_layer():
    layer = double_layer(channels=8)
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    parameters = tuple(p.detach().requires_grad_() for p in layer.parameters())
    names = [n for n, _ in layer.named_parameters()]

    def by_parameters(*values):
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, state, (x.detach(),))

    assert torch.autograd.gradcheck(by_parameters, parameters)


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('chunk', [2048, 45, 7])
@pytest.mark.parametrize('spatial', [(9, 10), (1, 30), (3, 4, 5)], ids=str)
def test_fused_path_equals_the_steps(
    spatial, chunk, channels_last, monkeypatch
):
    """Chunks of pixels that hold several pictures, one, or a part of one."""
    monkeypatch.setattr('mmseg_attn.layers.criss_cross_cpu._CHUNK', chunk)
    layer = double_layer(spatial_dims=len(spatial))
    x = torch.randn(3, 16, *spatial, dtype=torch.float64)
    if channels_last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    weight = torch.randn_like(x)
    results = []
    for fuse in (True, False):
        monkeypatch.setattr(
            'mmseg_attn.layers.criss_cross.can_fuse', lambda _, f=fuse: f
        )
        inputs = x.detach().requires_grad_()
        out = layer(inputs)
        grads = torch.autograd.grad(
            (out * weight).sum(), [inputs, *layer.parameters()]
        )
        results.append([out, *grads])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_fused_path_refuses_a_second_derivative():
    layer = double_layer()
    x = torch.randn(1, 16, 3, 4, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="backend='reference'"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)


@pytest.mark.parametrize('gamma', [1.0, 1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize('size', [(24, 20), (130, 8)], ids=str)
def test_fp32_gradients_at_any_gamma(gamma, size):
    """At most thrice the error of plain steps in fp32, against fp64."""
    torch.manual_seed(0)
    layer = CrissCrossAttention(64, gamma_init=gamma)
    plain = CrissCrossAttention(64, backend='reference')
    plain.load_state_dict(layer.state_dict())
    exact = copy.deepcopy(plain).double()
    x, weight = torch.randn(2, 1, 64, *size)
    results = []
    for module in (layer, plain, exact):
        dtype = module.gamma.scale.dtype
        inputs = x.to(dtype).requires_grad_()
        loss = (module(inputs) * weight.to(dtype)).sum()
        tensors = [inputs, *module.parameters()]
        results.append(torch.autograd.grad(loss, tensors))
    names = ['x', *(n for n, _ in layer.named_parameters())]
    for name, ours, theirs, truth in zip(names, *results, strict=True):
        if name == 'key_conv.bias':
            continue  # exactly 0: nothing but rounding to compare
        scale = truth.abs().max()
        error, usual = (
            (g.double() - truth).abs().max() / scale for g in (ours, theirs)
        )
        assert error <= 3 * usual + 1e-6, name


@pytest.mark.parametrize('fuse', [True, False])
def test_output_may_be_changed_in_place(fuse, monkeypatch):
    monkeypatch.setattr(
        'mmseg_attn.layers.criss_cross.can_fuse', lambda _: fuse
    )
    layer = double_layer()
    x = torch.randn(1, 16, 3, 4, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    out = layer(x)
    out.mul_(out.detach().clone())
    (grad,) = torch.autograd.grad(2 * out.sum(), x)
    torch.testing.assert_close(grad, expected)


def test_autocast_around_the_backward_changes_nothing():
    layer = CrissCrossAttention(16, gamma_init=0.5)
    loss = layer(torch.randn(1, 16, 5, 6)).square().sum()
    parameters = list(layer.parameters())
    plain = torch.autograd.grad(loss, parameters, retain_graph=True)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = torch.autograd.grad(loss, parameters)
    for a, b in zip(mixed, plain, strict=True):
        assert torch.equal(a, b)


def test_changed_projections_are_called():
    """Hooks, quantisation, low-rank adapters: not only .weight counts."""
    layer, plain = double_layer(), double_layer()
    x = torch.randn(1, 16, 5, 6, dtype=torch.float64)
    layer.value_conv.register_forward_hook(lambda *a: 2 * a[-1])
    plain.value_conv.weight.data *= 2
    plain.value_conv.bias.data *= 2
    torch.testing.assert_close(layer(x), plain(x))


def test_pretrained_gamma_stays(tmp_path):
    saved = CrissCrossAttention(16, gamma_init=0.5)
    path = str(tmp_path / 'layer.pth')
    torch.save(saved.state_dict(), path)
    layer = CrissCrossAttention(
        16, init_cfg=dict(type='Pretrained', checkpoint=path)
    )
    layer.init_weights()
    assert layer.gamma.scale == 0.5


def test_starts_as_the_identity_and_still_learns():
    layer = CrissCrossAttention(16)
    x = torch.randn(1, 16, 5, 6)
    out = layer(x)
    assert torch.equal(out, x)
    out.square().sum().backward()
    assert layer.gamma.scale.grad != 0


def test_bf16_autocast():
    torch.manual_seed(0)
    layer = CrissCrossAttention(32, gamma_init=0.5)
    x = torch.randn(2, 32, 6, 7)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = layer(x)
    torch.testing.assert_close(mixed.float(), layer(x), rtol=0.05, atol=0.05)
    mixed.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_parameters_of_the_paper():
    """C = 512: two projections to 64, one to 512, with bias, and gamma."""
    layer = CrissCrossAttention(512)
    count = sum(p.numel() for p in layer.parameters())
    assert count == 2 * (512 * 64 + 64) + 512 * 512 + 512 + 1 == 328321


def test_traced_attention_is_the_transposed_matrix():
    """Through two loops, against the Jacobian of the plain matrix product."""
    layer = double_layer()
    with torch.inference_mode():
        x = torch.randn(1, 16, 4, 5, dtype=torch.float64)
        x2 = layer(x)

    def matrix(features):
        features = features.clone()  # an ordinary tensor again
        q, k = (
            c(features).movedim(1, -1).unsqueeze(-2)
            for c in (layer.query_conv, layer.key_conv)
        )
        unit = torch.eye(20, dtype=torch.float64).view(1, 4, 5, 1, 20)
        out = criss_cross_attention(q, k, unit, backend='reference')
        return out.reshape(20, 20)

    weight = torch.zeros(1, 4, 5, dtype=torch.float64)
    weight[0, 1, 2] = 1
    once = layer.trace_attention(x2, weight)
    torch.testing.assert_close(once.flatten(), matrix(x2)[7])
    assert (once[0] > 0).sum() == 4 + 5 - 1
    twice = layer.trace_attention(x, once)
    torch.testing.assert_close(twice.flatten(), (matrix(x2) @ matrix(x))[7])
    assert (twice > 0).all() and twice.sum() == pytest.approx(1)


def test_is_copied_saved_and_compiled_like_any_module(tmp_path):
    layer = double_layer()
    torch.save(layer.state_dict(), tmp_path / 'layer.pth')
    other = CrissCrossAttention(16).double()
    other.load_state_dict(
        torch.load(tmp_path / 'layer.pth', weights_only=True)
    )
    x = torch.randn(1, 16, 4, 6, dtype=torch.float64)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), layer(x))


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match='in_channels=4 and reduction=8'):
        CrissCrossAttention(4)
    with pytest.raises(ValueError, match='spatial_dims.*4'):
        CrissCrossAttention(16, spatial_dims=4)
    layer = CrissCrossAttention(16)
    with pytest.raises(ValueError, match=r'\(B, 16, H, W\).*\(1, 8, 3, 3\)'):
        layer(torch.zeros(1, 8, 3, 3))
    with pytest.raises(ValueError, match='spatial_dims'):
        layer(torch.zeros(1, 16, 2, 3, 3))
    with pytest.raises(ValueError, match=r'\(1, 3, 4\).*\(1, 4, 3\)'):
        layer.trace_attention(torch.zeros(1, 16, 3, 4), torch.zeros(1, 4, 3))
    with pytest.raises(ValueError, match="'cuda'"):
        CrissCrossAttention(16, backend='cuda')
    with pytest.raises(ValueError, match='empty'):
        layer(torch.zeros(0, 16, 3, 3))


@pytest.mark.parametrize('tells', [True, False])
def test_backward_can_be_repeated(tells, monkeypatch):
    """It writes over what it kept, but not while the graph is kept."""
    if not tells:  # a torch that does not tell
        monkeypatch.delattr(
            torch._C._autograd, '_get_current_graph_task_keep_graph'
        )
    torch.manual_seed(0)
    layer = CrissCrossAttention(8, reduction=2, gamma_init=0.6).double()
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.parameters()]
    out = layer(x).square().sum()
    keep = dict(retain_graph=True)
    first = torch.autograd.grad(out, inputs, **keep)
    second = torch.autograd.grad(out, inputs, **keep)
    third = torch.autograd.grad(out, inputs)
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


@pytest.mark.parametrize('reduction', [1, 2, 4])
def test_gradients_at_each_reduction(reduction):
    """The scratch of query and key fits the gradient's memory or not."""
    torch.manual_seed(0)
    layer = CrissCrossAttention(4, reduction, gamma_init=0.6).double()
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *_: layer(x), (x, *layer.parameters())
    )


@pytest.mark.parametrize('reentrant', [True, False])
def test_can_be_checkpointed(reentrant):
    torch.manual_seed(0)
    layer = CrissCrossAttention(8, reduction=2, gamma_init=0.6).double()
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    out = checkpoint(layer, x, use_reentrant=reentrant)
    out.square().sum().backward()
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=1e-12)
