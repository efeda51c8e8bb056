# Copyright (c) mmseg_attn contributors.
"""The way that torch's backend takes on a GPU, run on the CPU and on meta."""

import dataclasses
import subprocess
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmseg_attn.ops import declare
from mmseg_attn.ops.core import autograd, device, groups
from mmseg_attn.ops.declare import Case

# Plain operators go one way on all devices.
OPERATORS = {n: o for n, o in declare.OPERATORS.items() if not o.plain}
EACH = pytest.mark.parametrize('name', OPERATORS)
EACH_CASE = pytest.mark.parametrize(
    'name, index',
    [(n, i) for n, o in OPERATORS.items() for i in range(len(o.cases))],
)
HALVES = pytest.mark.parametrize(
    'dtype', [torch.float16, torch.bfloat16], ids=str
)
NARROW = pytest.mark.parametrize(
    'dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str
)


@pytest.fixture
def gpu(monkeypatch):
    """Tensors of the CPU go the GPU's way, in blocks of few scores."""
    monkeypatch.setattr(device, 'on_gpu', lambda x: True)
    monkeypatch.setattr(groups, '_GPU_BLOCK', 40)
    monkeypatch.setattr(groups, '_GPU_SHARE', 0)


def make(name, case, dtype=torch.float64):
    torch.manual_seed(0)
    inputs = OPERATORS[name].inputs(case, dtype=torch.float64)
    return [x.to(dtype).requires_grad_() for x in inputs]


def call(name, inputs, case, backend='torch'):
    function = OPERATORS[name].function
    return function(*inputs, **case.options, backend=backend)


def run(name, inputs, case, backend='torch', weight=None):
    """Output and the gradient of each input for a weighted sum."""
    out = call(name, inputs, case, backend)
    if weight is None:
        torch.manual_seed(1)
        weight = torch.randn(out.shape, dtype=torch.float64)
    grad = weight.to(out.dtype).expand(out.shape)
    return out.detach(), *torch.autograd.grad(out, inputs, grad)


def exact(inputs):
    return [x.detach().double().requires_grad_() for x in inputs]


def error(x, truth):
    return (x.double() - truth).abs().max() / truth.abs().max()


@EACH_CASE
def test_equals_the_reference(name, index, gpu):
    case = OPERATORS[name].cases[index]
    inputs = make(name, case)
    expected = run(name, inputs, case, 'reference')
    got = run(name, inputs, case)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(
            a, b, rtol=0, atol=OPERATORS[name].tolerance
        )


@NARROW
@pytest.mark.parametrize('heads', [1, 2])
@EACH
def test_error_of_each_dtype(name, heads, dtype, gpu):
    """As near to the truth as the reference in fp32, but for rounding."""
    declared = OPERATORS[name]
    case = dataclasses.replace(declared.cases[-1], heads=heads)
    if name == 'channel_linear_attention':
        case = dataclasses.replace(case, spatial=(9, 8), value_dim=16)
    low = make(name, case, dtype)
    weight = torch.randn(call(name, low, case).shape).to(dtype)
    truth = run(name, exact(low), case, 'reference', weight)
    ours = run(name, low, case, weight=weight)
    theirs = run(name, low, case, 'reference', weight)
    for i, (a, b, t) in enumerate(zip(ours, theirs, truth, strict=True)):
        assert a.dtype == dtype
        limit = declared.loss[i > 0] * error(b, t)
        assert error(a, t) <= limit + torch.finfo(dtype).eps


@HALVES
@pytest.mark.parametrize('factor', [0.0, 50.0], ids=['zeros', 'large'])
@EACH_CASE
def test_extremes_stay_finite(name, index, factor, dtype, gpu):
    """Zero inputs, and scores of about 1e4: 50 * 50 * |q . k|."""
    case = OPERATORS[name].cases[index]
    *attended, value = make(name, case, torch.float32)
    inputs = [x * factor for x in attended] + [value * bool(factor)]
    inputs = [x.detach().to(dtype).requires_grad_() for x in inputs]
    for x in run(name, inputs, case):
        assert x.isfinite().all()


@pytest.mark.slow
@HALVES
@EACH
def test_large_equal_maps(name, dtype, monkeypatch):
    """Sums over all positions beyond fp16's range, weights below it."""
    monkeypatch.setattr(device, 'on_gpu', lambda x: True)
    declared = OPERATORS[name]
    case = next(c for c in declared.cases if len(c.spatial) == 2)
    options = dict(case.options)
    if 'partition' in options:
        options['partition'] = 16, 16
    # Sums of 3 * 3 over 25,600 positions; the others sum over a few of them.
    sums = (
        'efficient_attention',
        'linear_attention',
        'channel_linear_attention',
    )
    side = 160 if name in sums else 64
    case = Case((side, side), 1, 2, 2, 1, options=options)
    shapes = case.shapes
    inputs = [
        torch.full(shapes[t], 3.0, dtype=dtype, requires_grad=True)
        for t in declared.tensors
    ]
    out, *grads = run(name, inputs, case, weight=torch.ones(()))
    assert all(x.isfinite().all() for x in grads)
    if name in ('channel_linear_attention', 'channelized_axial_attention'):
        assert out.isfinite().all()
    else:  # weights that add up to 1
        torch.testing.assert_close(out, inputs[-1], rtol=0.01, atol=0)
        torch.testing.assert_close(
            grads[-1], torch.ones_like(out), rtol=0.01, atol=0
        )


@EACH
def test_products_of_scaled_gradients_leave_the_range_of_fp16(name, gpu):
    """<grad, value> is beyond 65,504, the gradients are not."""
    declared = OPERATORS[name]
    options = declared.cases[0].options
    case = Case((8, 6), 1, 16, 64, 1, options=options)
    # The gradient of scores is small for small keys and queries, that of
    # vectors of unit length large.
    small = {'linear_attention': 1, 'efficient_attention': 1 / 4}
    scale = small.get(name, 1 / 64)
    *attended, value = make(name, case)
    inputs = [x * scale for x in attended] + [16 * value]
    inputs = [x.detach().half().requires_grad_() for x in inputs]
    torch.manual_seed(1)
    weight = (4096 * torch.randn(case.shapes['value'])).half()
    truth = run(name, exact(inputs), case, 'reference', weight)
    assert max(x.abs().max() for x in truth) < 65504
    got = run(name, inputs, case, weight=weight)
    for a, t in zip(got, truth, strict=True):
        assert error(a, t) < 3e-3


def assert_near_the_truth(name, inputs, options):
    """Within the bounds that hold for ordinary inputs."""
    low = [x.detach().requires_grad_() for x in inputs]
    case = Case(low[0].shape[1:-2], options=options)
    truth = run(name, exact(low), case, 'reference')
    ours = run(name, low, case)
    theirs = run(name, low, case, 'reference')
    for i, (a, b, t) in enumerate(zip(ours, theirs, truth, strict=True)):
        limit = OPERATORS[name].loss[i > 0] * error(b, t)
        assert error(a, t) <= limit + torch.finfo(a.dtype).eps


MEANS = pytest.mark.parametrize(
    'name, options',
    [
        ('efficient_attention', {}),
        ('linear_attention', dict(feature_map='softplus')),
    ],
    ids=str,
)


@HALVES
@MEANS
def test_values_with_a_mean(name, options, dtype, gpu):
    """The gradient of a query is that of what the values differ in."""
    q, k, v = make(name, Case((24, 24), 1, 8, 16))
    inputs = [x.to(dtype) for x in (q, k, v / 2 + 1)]
    assert_near_the_truth(name, inputs, options)


@HALVES
def test_a_key_far_above_the_others(dtype, gpu):
    """Many weights of e^-8.97, the difference from the peak being in fp32."""
    q, k, v = make('efficient_attention', Case((96, 96), 1, 4, 8, 1))
    k, v = torch.full_like(k, 1 / 32), v.detach().clone()
    k[:, 7, 9], v[:, 7, 9] = 9, 4
    inputs = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    case = Case((96, 96))
    truth = call('efficient_attention', exact(inputs), case)
    out = call('efficient_attention', inputs, case)
    assert error(out, truth) < torch.finfo(dtype).eps


@HALVES
def test_far_negative_softplus(dtype, gpu):
    """Features of 1e-7 are as good as others: weights are shares."""
    q, k, v = make('linear_attention', Case((9, 8), 1, 8, 16))
    inputs = [x.to(dtype) for x in (q - 16, k - 16, v)]
    options = dict(feature_map='softplus', eps=0.0)
    assert_near_the_truth('linear_attention', inputs, options)


@pytest.mark.parametrize(
    'dtype',
    [torch.float64, torch.float32, torch.bfloat16, torch.float16],
    ids=str,
)
def test_query_against_all_keys_stays_within_the_values(dtype, gpu):
    """Its weights 1 + cos are 0, and what is left of them is rounding."""
    torch.manual_seed(0)
    k = torch.randn(8, dtype=dtype).expand(1, 13, 9, 1, 8)
    v = torch.randn(1, 13, 9, 1, 16, dtype=dtype)
    inputs = [x.clone().requires_grad_() for x in (-k, k, v)]
    out, *grads = run('linear_attention', inputs, Case((13, 9)))
    assert out.abs().max() < 2 * v.abs().max()
    # Of its size without the denominators, which are at their floor.
    assert grads[0].abs().max() < 10 * v.abs().max() / torch.finfo(dtype).eps
    assert all(x.isfinite().all() for x in grads)


@pytest.mark.parametrize('variant', ['official', 'corrected'])
def test_positions_and_channels_shorter_than_unit_vectors_need(variant, gpu):
    (x,) = make('channel_linear_attention', Case((3, 4), 2, 5, 5))
    x = x.detach().clone()
    x[0, 1, 2] *= 1e-9
    x[1, ..., 3] *= 1e-9
    x[1, 2, 3] = 0
    case = Case((3, 4), options=dict(variant=variant))
    name = 'channel_linear_attention'
    expected = run(name, exact([x]), case, 'reference')
    got = run(name, exact([x]), case)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@EACH
@pytest.mark.parametrize('layout', ['padded', 'permuted', 'expanded'])
def test_strided_inputs(name, layout, gpu):
    case = OPERATORS[name].cases[0]
    plain = [x.detach() for x in make(name, case)]
    if layout == 'padded':  # split from one wider projection
        made = [torch.cat([x, x], -1)[..., : x.shape[-1]] for x in plain]
    elif layout == 'permuted':  # projected maps (B, C, *spatial)
        made = [x.movedim(-1, 1).contiguous().movedim(1, -1) for x in plain]
    else:
        made = [x[:1].expand(x.shape) for x in plain]
        plain = [x.contiguous() for x in made]
    assert any(not x.is_contiguous() for x in made)
    weight = torch.ones((), dtype=torch.float64)  # a gradient without strides
    for w in (None, weight):
        expected = run(
            name, [x.requires_grad_() for x in plain], case, weight=w
        )
        got = run(name, [x.requires_grad_() for x in made], case, weight=w)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@EACH
def test_only_one_input_needs_a_gradient(name, gpu):
    case = OPERATORS[name].cases[0]
    inputs = make(name, case)
    out, *expected = run(name, inputs, case)
    torch.manual_seed(1)
    weight = torch.randn(out.shape, dtype=torch.float64)
    for i, want in enumerate(expected):
        alone = [
            x.detach().requires_grad_(i == j) for j, x in enumerate(inputs)
        ]
        out = call(name, alone, case)
        (got,) = torch.autograd.grad(out, alone[i], weight)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@EACH
def test_autocast_changes_nothing(name, gpu):
    case = OPERATORS[name].cases[0]
    inputs = make(name, case, torch.bfloat16)
    plain = run(name, inputs, case)
    with torch.autocast('cpu', torch.bfloat16):
        got = run(name, inputs, case)
    assert all(map(torch.equal, got, plain))


class Calls(TorchDispatchMode):
    """Records what torch is asked for, and each tensor that it makes."""

    def __init__(self):
        super().__init__()
        self.names, self.made = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **kwargs or {})
        self.names.append(function.overloadpacket.__name__)
        self.made += [x for x in tree_leaves(out) if torch.is_tensor(x)]
        return out


def on_meta(name, case, dtype=torch.bfloat16):
    """Calls of a forward and backward on meta, which stands for CUDA."""
    inputs = [
        x.requires_grad_()
        for x in OPERATORS[name].inputs(case, dtype=dtype, device='meta')
    ]
    with device.counting(), Calls() as calls:
        out = call(name, inputs, case)
        torch.autograd.grad(out, inputs, torch.empty_like(out))
    return calls


EXCEPT_SDPA = pytest.mark.parametrize(
    'name', [n for n in OPERATORS if n != 'non_local_attention']
)


@EXCEPT_SDPA
def test_launches_do_not_grow_with_the_map(name):
    benchmark = OPERATORS[name].benchmark
    few, many = (
        on_meta(name, benchmark(2, side, side, 512)).names
        for side in (32, 160)  # from 512 positions of a group on by other ones
    )
    assert few == many


@EXCEPT_SDPA
@HALVES
def test_no_map_is_widened(name, dtype):
    """fp32 are scores, sums and features of narrow maps."""
    case = OPERATORS[name].benchmark(2, 32, 32, 512)
    calls = on_meta(name, case, dtype)
    size = case.positions * case.value_dim
    wide = [x for x in calls.made if x.dtype == torch.float32]
    assert wide
    if (name, dtype) == ('channelized_axial_attention', torch.float16):
        size += 1  # products of the gradient and the attention
    assert max(x.numel() for x in wide) < size


@pytest.mark.parametrize('batch', [1, 2])
def test_lines_are_read_and_written_as_they_lie(batch):
    case = OPERATORS['criss_cross_attention'].benchmark(batch, 32, 48, 512)
    calls = on_meta('criss_cross_attention', case)
    assert not {'clone', 'contiguous'} & set(calls.names)


@pytest.mark.parametrize('axis', [0, 1])
def test_scores_take_no_more_memory_than_the_maps(axis):
    """Of lines much longer than the map has channels."""
    spatial = (8192, 64) if axis == 0 else (64, 8192)
    case = Case(spatial, 1, 8, 64, 1, options=dict(axis=axis))
    calls = on_meta('axial_attention', case)
    limit = max(case.positions * case.value_dim, 8192**2)
    assert max(x.numel() for x in calls.made) <= limit


@pytest.mark.parametrize('rows', [(3, 5, 7), (64,), (3,)], ids=str)
@pytest.mark.parametrize('dtype', [torch.float64, torch.float16], ids=str)
def test_dots(rows, dtype, gpu):
    torch.manual_seed(0)
    a, b = (100 * torch.randn(*rows, 70).to(dtype) for _ in range(2))
    got = autograd.dots(a, b.expand(a.shape))
    expected = (a.double() * b.double()).sum(-1, keepdim=True)
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-1)


@pytest.mark.parametrize(
    'widths, heads, expected',
    [
        ((64, 512), 1, (4, 128)),
        ((12, 510), 1, (4, 128)),
        ((256, 512), 1, (2, 256)),
        ((36, 200), 2, (4, 104)),
        ((40, 40), 2, (2, 40)),
    ],
)
@pytest.mark.parametrize(
    'change',
    [
        lambda x: x,
        lambda x: torch.cat([x, x], -1)[..., 8:][..., : x.shape[-1]],
        lambda x: torch.cat([x, x], -1)[..., 3:][..., : x.shape[-1]],
        lambda x: x.movedim(-1, 1).contiguous().movedim(1, -1),
        lambda x: x.repeat_interleave(8, -1)[..., ::8],
    ],
    ids=['whole', 'aligned', 'odd', 'permuted', 'spread'],
)
def test_flash_attention_is_given_what_it_takes(
    widths, heads, expected, change, gpu, monkeypatch
):
    """Heads of one width, of 16 bytes as their rows' beginnings are."""
    given = spied_attention(monkeypatch)
    case = Case((4, 5), heads, *widths)
    inputs = [
        x.detach() for x in make('non_local_attention', case, torch.bfloat16)
    ]
    out = call('non_local_attention', map(change, inputs), case)
    torch.testing.assert_close(
        out,
        call('non_local_attention', map(change, inputs), case, 'reference'),
        rtol=0.02,
        atol=0.02,
    )
    for x in given:
        assert (x.shape[1], x.shape[-1]) == expected
        assert x.stride(-1) == 1
        assert x.storage_offset() % 8 == 0
        assert all(stride % 8 == 0 for stride in x.stride()[:-1])


def spied_attention(monkeypatch):
    """What torch's fused attention is given, and that cuDNN is off."""
    given = []
    real = F.scaled_dot_product_attention

    def spy(*maps, **kwargs):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
        given.extend(maps)
        return real(*maps, **kwargs)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', spy)
    return given


@pytest.mark.parametrize(
    'dtype, heads, widths',
    [
        (torch.float32, 1, (64, 512)),
        (torch.bfloat16, 1, (264, 64)),  # wider than flash attention takes
    ],
)
def test_other_attention_keeps_its_widths(
    dtype, heads, widths, gpu, monkeypatch
):
    given = spied_attention(monkeypatch)
    case = Case((4, 5), heads, *widths)
    call('non_local_attention', make('non_local_attention', case, dtype), case)
    assert [x.shape[-1] for x in given] == [widths[0], *widths]


def test_kernels_that_the_user_switched_off_stay_so(gpu, monkeypatch):
    flags = []
    real = F.scaled_dot_product_attention

    def spy(*maps, **kwargs):
        cuda = torch.backends.cuda
        flags.append((cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()))
        return real(*maps, **kwargs)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', spy)
    case = Case((4, 5), 1, 64, 512)
    maps = make('non_local_attention', case, torch.bfloat16)
    call('non_local_attention', maps, case)
    with sdpa_kernel(SDPBackend.MATH):
        call('non_local_attention', maps, case)
    assert flags == [(True, True), (False, True)]


@pytest.mark.parametrize(
    'shape, order, expected',
    [
        ((2, 5, 6, 1, 4), (0, 1, 2, 3, 4), 4),
        ((2, 1, 5, 6), (0, 2, 3, 1), 1),  # a last axis of one channel
        ((2, 4, 5, 6), (0, 2, 3, 1), None),
        ((2, 5, 6, 4), (0, 2, 1, 3), None),
    ],
)
def test_rows_as_a_view_would_have_them(shape, order, expected):
    x = torch.empty(shape).permute(order)
    assert autograd.row_step(x) == expected
    if expected is None:
        with pytest.raises(RuntimeError):
            x.view(-1, x.shape[-1])


@pytest.mark.parametrize(
    'members, padding, dtype, backend, expected',
    [
        (512, 'attend', torch.bfloat16, None, (4, 2, 512, 256)),
        (512, 'attend', torch.float16, 'torch', (4, 2, 512, 256)),
        (256, 'attend', torch.bfloat16, 'torch', None),
        (512, 'mask', torch.bfloat16, 'torch', None),
    ],
)
def test_large_groups_go_to_flash_attention(
    members, padding, dtype, backend, expected, gpu, monkeypatch
):
    """In parts of the value as wide as the keys."""
    given = spied_attention(monkeypatch)
    options = dict(partition=(2, 2), span='long', padding=padding)
    spatial = (2 * members // 16, 32 - (padding == 'mask'))
    case = Case(spatial, 1, 256, 512, 1, options=options)
    name = 'interlaced_sparse_attention'
    inputs = [x.detach() / 4 for x in make(name, case, dtype)]
    out = call(name, inputs, case, backend)
    assert [tuple(x.shape) for x in given] == [expected] * 3 * bool(expected)
    want = call(name, inputs, case, 'reference')
    torch.testing.assert_close(out, want, rtol=0.02, atol=0.02)


@EACH
def test_compilers_and_exporters_see_one_graph(name, gpu):
    """Which cannot be asked where a map begins in memory."""
    case = OPERATORS[name].cases[0]
    case = dataclasses.replace(case, dim=8, value_dim=16)  # whole 16 bytes
    inputs = make(name, case, torch.float32)
    function = partial(OPERATORS[name].function, **case.options)
    expected = run(name, inputs, case, 'reference')
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    out = compiled(*inputs)
    torch.manual_seed(1)
    weight = torch.randn(out.shape, dtype=torch.float64).to(out.dtype)
    got = out, *torch.autograd.grad(out, inputs, weight)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)

    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return function(*tensors)

    exported = torch.export.export(Module(), tuple(inputs)).module()
    torch.testing.assert_close(exported(*inputs), out)


SWITCHES = {
    '': False,
    'cuda.matmul.allow_tf32 = True': True,
    'cuda.matmul.fp32_precision = "tf32"': True,
    'cuda.matmul.fp32_precision = "ieee"': False,
    'fp32_precision = "tf32"': True,
    'fp32_precision = "tf32"; b.cuda.matmul.fp32_precision = "ieee"': False,
    'fp32_precision = "tf32"; b.cuda.matmul.allow_tf32 = False': False,
    'torch.set_float32_matmul_precision("high")': True,
    'torch.set_float32_matmul_precision("highest")': False,
    'cudnn.allow_tf32 = False': False,
}


@pytest.mark.skipif(
    not hasattr(torch.backends, 'fp32_precision'),
    reason='torch before 2.9 has one switch',
)
def test_tf32_by_every_switch():
    """Each in a process of its own, forked: torch remembers what was set."""
    script = [
        'import os, torch, torch.backends as b',
        'from mmseg_attn.ops.core.device import tf32_is_allowed',
        'def told(code):',
        '    if os.fork() == 0:',
        '        exec(code)',
        '        print(repr(code), tf32_is_allowed(), flush=True)',
        '        os._exit(0)',
        '    os.wait()',
    ]
    expected = []
    for switch, allowed in SWITCHES.items():
        code = switch if switch.startswith('torch') else f'b.{switch}'
        code = code if switch else 'pass'
        script.append(f'told({code!r})')
        expected.append(f'{code!r} {allowed}')
    got = subprocess.run(
        [sys.executable, '-c', '\n'.join(script)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert got.stdout.splitlines() == expected
