# Copyright (c) mmseg_attn contributors.
"""What every operator must do, over the declarations of all of them."""

import dataclasses
import math

import pytest
import torch
from torch import library
from torch.utils.flop_counter import FlopCounterMode

from mmseg_attn import ops
from mmseg_attn.ops import channel_linear_attention, declare
from mmseg_attn.ops.core import axis
from mmseg_attn.ops.declare import OPERATORS, Case

pytestmark = pytest.mark.usefixtures('device')
EACH = pytest.mark.parametrize('name', OPERATORS)
CASES = [
    (name, i) for name, o in OPERATORS.items() for i in range(len(o.cases))
]
SCALED = [
    name
    for name, operator in OPERATORS.items()
    if 'scale' in operator.function.__kwdefaults__
]
EACH_CASE = pytest.mark.parametrize('name, index', CASES)


def call(name, inputs, case, **kwargs):
    return OPERATORS[name].function(*inputs, **case.options, **kwargs)


def inputs_of(name, case, dtype=torch.float64):
    torch.manual_seed(0)
    inputs = OPERATORS[name].inputs(case, dtype=dtype)
    return [x.requires_grad_() for x in inputs]


def results(name, inputs, case, weight=None, **kwargs):
    """Output and the gradient of each input for a weighted sum."""
    out = call(name, inputs, case, **kwargs)
    if weight is None:
        torch.manual_seed(1)
        weight = torch.randn(out.shape, dtype=torch.float64).to(out.dtype)
    return out, *torch.autograd.grad((out * weight).sum(), inputs)


def assert_all_close(got, expected, atol):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def with_sizes(case, spatial, **kwargs):
    """The case on another grid of the same rank."""
    keys = case.key_spatial and tuple(n + 1 for n in case.key_spatial)
    return dataclasses.replace(
        case, spatial=spatial, key_spatial=keys, **kwargs
    )


@EACH_CASE
def test_backends_equal_the_reference(name, index):
    """In float64, output and gradients, where the backend runs here."""
    declared = OPERATORS[name]
    case = declared.cases[index]
    inputs = inputs_of(name, case)
    expected = results(name, inputs, case, backend='reference')
    tried = 0
    for backend, found in declared.backends.items():
        if backend != 'reference' and not found.refuses(*inputs):
            got = results(name, inputs, case, backend=backend)
            assert_all_close(got, expected, declared.tolerance)
            tried += 1
    assert tried


@pytest.mark.parametrize(
    'name, index',
    [
        (n, i)
        for n, i in CASES
        if n in ('criss_cross_attention', 'axial_attention')
    ],
)
def test_plain_steps_of_tiny_problems(name, index, device, monkeypatch):
    """The default: few scores are computed without blocks."""
    if device == 'cuda':
        pytest.skip('of the CPU')
    case = OPERATORS[name].cases[index]
    inputs = inputs_of(name, case)
    expected = results(name, inputs, case, backend='reference')
    monkeypatch.setattr('mmseg_attn.ops.core.axis.PLAIN_SCORES', 2**20)
    monkeypatch.delattr('mmseg_attn.ops.core.axis.Attention')  # not taken
    assert_all_close(results(name, inputs, case), expected, 1e-12)
    low = [x.detach().bfloat16() for x in inputs]
    with torch.autocast('cpu', torch.bfloat16):
        out = call(name, low, case)
    assert torch.equal(out, call(name, low, case))


@EACH_CASE
def test_gradcheck(name, index):
    case = OPERATORS[name].cases[index]
    if math.prod(case.spatial) > 60:
        case = with_sizes(case, (3,) * len(case.spatial), dim=2, value_dim=2)
    assert torch.autograd.gradcheck(
        lambda *x: call(name, x, case), inputs_of(name, case)
    )


def relative_error(x, truth):
    return (x.double() - truth).abs().max() / truth.abs().max()


@pytest.mark.parametrize(
    'name, dtype',
    [(n, d) for n, o in OPERATORS.items() for d in o.dtypes[1:]],
)
def test_error_of_each_dtype(name, dtype, tf32):
    """At most so many times that of the reference in the dtype.

    The truth is the reference in float64 on the same rounded inputs.
    """
    # Libraries multiply small matrices in fp32 although TF32 is allowed.
    spacing = 4 * 2**-10 if tf32 else torch.finfo(dtype).eps
    case = OPERATORS[name].cases[-1]
    low = [
        x.detach().to(dtype).requires_grad_() for x in inputs_of(name, case)
    ]
    exact = [x.detach().double().requires_grad_() for x in low]
    torch.manual_seed(1)
    weight = torch.randn(call(name, low, case).shape).to(dtype)

    def run(inputs, backend):
        cast = weight.to(inputs[0].dtype)
        return results(name, inputs, case, cast, backend=backend)

    truth = run(exact, 'reference')
    ours, theirs = run(low, None), run(low, 'reference')
    for i, (a, b, t) in enumerate(zip(ours, theirs, truth, strict=True)):
        assert a.dtype == dtype
        limit = OPERATORS[name].loss[i > 0] * relative_error(b, t)
        assert relative_error(a, t) <= limit + spacing


@EACH_CASE
@pytest.mark.parametrize('factor', [0.0, 50.0], ids=['zeros', 'large'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_extremes_stay_finite(name, index, factor, dtype):
    """Zero inputs, and scores of about 1e4: 50 * 50 * |q . k|."""
    case = OPERATORS[name].cases[index]
    inputs = [x.detach() for x in inputs_of(name, case, torch.float32)]
    # Of the attended tensors alone; the value stays.
    inputs = [x * factor for x in inputs[:-1]] + [inputs[-1] * bool(factor)]
    inputs = [x.to(dtype).requires_grad_() for x in inputs]
    for x in results(name, inputs, case):
        assert x.isfinite().all()


@pytest.mark.parametrize('name', SCALED)
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32], ids=str)
def test_scores_beyond_all_reason(name, dtype):
    """Weights of 0 and 1: exp(score - log-sum-exp) must not overflow."""
    case = OPERATORS[name].cases[0]
    case = dataclasses.replace(case, options={**case.options, 'scale': 4e7})
    inputs = [
        x.detach().to(dtype).requires_grad_() for x in inputs_of(name, case)
    ]
    # Torch's own kernel on the CPU overflows: the docstring says so.
    backend = 'reference' if name == 'non_local_attention' else 'torch'
    for x in results(name, inputs, case, backend=backend):
        assert x.isfinite().all()


def test_a_dead_channel():
    """Its gradient is large, and right; behind a ReLU it is none."""
    torch.manual_seed(0)
    x = torch.randn(1, 5, 7, 1, 6, dtype=torch.float64)
    x[..., 2] = 0
    weight = torch.randn_like(x)

    def gradient(dtype, backend, before=torch.clone):
        given = x.to(dtype).requires_grad_()
        out = channel_linear_attention(
            before(given), variant='corrected', backend=backend
        )
        return torch.autograd.grad(out, given, weight.to(dtype))[0].double()

    expected = gradient(torch.float64, 'reference')
    assert expected[..., 2].abs().max() > 1e5
    for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
        wrong = (gradient(dtype, 'torch') - expected).abs().max()
        assert wrong < limit * expected.abs().max()
    narrow = gradient(torch.float16, 'torch', torch.relu)
    assert narrow.isfinite().all() and not narrow[..., 2].any()


@pytest.mark.slow
@EACH
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_large_maps_in_half_precision(name, dtype):
    """65,536 equal positions: sums beyond fp16's range.

    A quadratic attention has fewer: its weights add up to 1.
    """
    quadratic = name in ('non_local_attention', 'interlaced_sparse_attention')
    spatial = (64, 64) if quadratic else (256, 256)
    declared = next(c for c in OPERATORS[name].cases if len(c.spatial) == 2)
    case = dataclasses.replace(
        declared,
        spatial=spatial,
        key_spatial=None,
        heads=1,
        dim=2,
        value_dim=2,
        batch=1,
    )
    shapes = case.shapes
    inputs = [
        torch.full(shapes[t], 3.0, dtype=dtype, requires_grad=True)
        for t in OPERATORS[name].tensors
    ]
    for x in results(name, inputs, case, torch.ones((), dtype=dtype)):
        assert x.isfinite().all()


@EACH
def test_large_sums_are_right(name):
    """Equal values come back from weights that add up to 1."""
    if name in ('channel_linear_attention', 'channelized_axial_attention'):
        pytest.skip('its weights do not add up to 1')
    options = dict(OPERATORS[name].cases[0].options)
    if 'partition' in options:
        options['padding'] = 'mask'
    case = Case((64, 64), dim=2, value_dim=2, batch=1, options=options)
    if case.options.get('normalization') == 'scaling':
        pytest.skip('its weights do not add up to 1')
    q, k, v = inputs_of(name, case, torch.float16)
    v = torch.full_like(v, 100.0)
    out = call(name, (q, k, v), case)
    torch.testing.assert_close(out, v, rtol=2e-3, atol=0)


@EACH
@pytest.mark.parametrize('layout', ['padded', 'permuted', 'expanded'])
def test_strided_inputs(name, layout):
    case = OPERATORS[name].cases[0]
    plain = [x.detach() for x in inputs_of(name, case)]
    if layout == 'padded':  # split from one wider projection
        made = [torch.cat([x, x], -1)[..., : x.shape[-1]] for x in plain]
    elif layout == 'permuted':  # projected maps (B, C, *spatial)
        made = [x.movedim(-1, 1).contiguous().movedim(1, -1) for x in plain]
    else:
        plain = [x[:1].expand(x.shape) for x in plain]
        made, plain = plain, [x.contiguous() for x in plain]
    assert any(not x.is_contiguous() for x in made)
    expected = results(name, [x.requires_grad_() for x in plain], case)
    got = results(name, [x.requires_grad_() for x in made], case)
    assert_all_close(got, expected, 1e-12)


@EACH
def test_gradient_of_a_constant(name):
    """That of out.sum() has no strides of its own."""
    case = OPERATORS[name].cases[0]
    inputs = inputs_of(name, case)
    out = call(name, inputs, case)
    got = torch.autograd.grad(out.sum(), inputs)
    expected = results(name, inputs, case, torch.ones_like(out))[1:]
    assert_all_close(got, expected, 1e-12)


@EACH
def test_only_one_input_needs_a_gradient(name):
    case = OPERATORS[name].cases[0]
    inputs = inputs_of(name, case)
    expected = results(name, inputs, case)[1:]
    for i, want in enumerate(expected):
        alone = [
            x.detach().requires_grad_(i == j) for j, x in enumerate(inputs)
        ]
        torch.manual_seed(1)
        out = call(name, alone, case)
        weight = torch.randn(out.shape, dtype=torch.float64)
        (got,) = torch.autograd.grad((out * weight).sum(), alone[i])
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@EACH
@pytest.mark.usefixtures('deterministic')
def test_autocast_keeps_the_sums_wide(name, device):
    case = OPERATORS[name].cases[0]
    inputs = [
        x.detach().bfloat16().requires_grad_() for x in inputs_of(name, case)
    ]
    plain = results(name, inputs, case)
    torch.manual_seed(1)
    weight = torch.randn(plain[0].shape, dtype=torch.float64).bfloat16()
    with torch.autocast(device, torch.bfloat16):
        out = call(name, inputs, case)
    got = out, *torch.autograd.grad((out * weight).sum(), inputs)
    for a, b in zip(got, plain, strict=True):
        assert torch.equal(a, b)


@EACH
def test_autocast_keeps_compiled_sums_wide(name, device):
    torch.compiler.reset()
    case = grids(name)[0]
    inputs = [x.detach() for x in inputs_of(name, case, torch.float32)]
    compiled = torch.compile(
        OPERATORS[name].function, fullgraph=True, backend='aot_eager'
    )
    with torch.autocast(device, torch.bfloat16):
        got = compiled(*inputs, **case.options)
    expected = call(name, inputs, case)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@EACH
def test_blocks_do_not_change_the_result(name, monkeypatch):
    """Many small blocks, as large maps have, give the same."""
    case = OPERATORS[name].cases[0]
    inputs = inputs_of(name, case)
    whole = results(name, inputs, case)
    monkeypatch.setattr('mmseg_attn.ops.core.groups._CPU_BLOCK', 100)
    monkeypatch.setattr('mmseg_attn.ops.core.context._CPU_CHUNK', 100)
    monkeypatch.setattr('mmseg_attn.ops.channelized_axial._BLOCK', 40)
    assert_all_close(results(name, inputs, case), whole, 1e-12)


@EACH
def test_saves_nothing_quadratic(name):
    """What the forward keeps grows with the positions, not their square."""

    def kept(side):
        case = dataclasses.replace(
            OPERATORS[name].benchmark(1, side, side, 16),
        )
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: saved.append(x.numel()) or x, lambda x: x
        ):
            call(name, inputs_of(name, case, torch.float32), case)
        return sum(saved)

    assert kept(48) < 4.2 * kept(24)


class Module(torch.nn.Module):
    def __init__(self, name, case):
        super().__init__()
        self.name, self.case = name, case

    def forward(self, *inputs):
        return call(self.name, inputs, self.case)


def grids(name):
    """2D cases of self-attention, and where else they are tried."""
    return [
        c
        for c in OPERATORS[name].cases
        if len(c.spatial) == 2 and min(c.spatial) > 1 and not c.key_spatial
    ]


def dynamic(inputs, case):
    """Any size of more than one cell of a partition."""
    partition = case.options.get('partition', (1, 1))
    height = torch.export.Dim('height', min=partition[0] + 1)
    width = torch.export.Dim('width', min=partition[1] + 1)
    return (tuple({1: height, 2: width} for _ in inputs),)


@EACH
def test_exports_with_dynamic_sizes(name):
    for case in grids(name):
        inputs = [x.detach() for x in inputs_of(name, case)]
        program = torch.export.export(
            Module(name, case),
            tuple(inputs),
            dynamic_shapes=dynamic(inputs, case),
        )
        for spatial in (case.spatial, (9, 9), (5, 13)):
            other = dataclasses.replace(case, spatial=spatial)
            tried = [x.detach() for x in inputs_of(name, other)]
            torch.testing.assert_close(
                program.module()(*tried), call(name, tried, other)
            )


@EACH
def test_onnx_runtime_agrees_at_other_sizes(name, device, tmp_path):
    if device == 'cuda':
        pytest.skip('ONNX Runtime has the CPU')
    pytest.importorskip('onnxscript')
    onnxruntime = pytest.importorskip('onnxruntime')
    case = grids(name)[0]
    inputs = [x.detach() for x in inputs_of(name, case, torch.float32)]
    path = tmp_path / 'operator.onnx'
    torch.onnx.export(
        Module(name, case).eval(),
        tuple(inputs),
        path,
        dynamo=True,
        dynamic_shapes=dynamic(inputs, case),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path)
    for spatial in ((9, 8), (5, 13), case.spatial):
        other = dataclasses.replace(case, spatial=spatial)
        tried = [x.detach() for x in inputs_of(name, other, torch.float32)]
        names = [i.name for i in session.get_inputs()]
        feed = dict(zip(names, (x.numpy() for x in tried), strict=True))
        (got,) = session.run(None, feed)
        torch.testing.assert_close(
            torch.from_numpy(got),
            call(name, tried, other),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.slow
@EACH
def test_compiles_in_one_graph_for_all_sizes(name):
    torch.compiler.reset()
    compiled = torch.compile(
        OPERATORS[name].function,
        fullgraph=True,
        dynamic=True,
        backend='aot_eager',
    )
    for case in grids(name)[:2]:
        for spatial in (case.spatial, (9, 8), (5, 13)):
            other = dataclasses.replace(case, spatial=spatial)
            inputs = inputs_of(name, other)
            expected = results(name, inputs, other)
            out = compiled(*inputs, **other.options)
            torch.manual_seed(1)
            weight = torch.randn(out.shape, dtype=torch.float64)
            grads = torch.autograd.grad((out * weight).sum(), inputs)
            assert_all_close((out, *grads), expected, 1e-12)


@pytest.mark.parametrize('dynamo_tells', [False, True])
@pytest.mark.parametrize('name', ['axial_attention', 'criss_cross_attention'])
def test_compilers_get_the_operator_exporters_plain_steps(
    name, dynamo_tells, monkeypatch
):
    """Also where Dynamo takes each compilation for an export."""
    if not hasattr(torch.compiler, 'is_exporting'):
        pytest.skip('this torch does not tell an export')
    if dynamo_tells > axis.DYNAMO_TELLS:
        pytest.skip('the Dynamo of this torch does not tell')
    if not dynamo_tells:  # to Dynamo both are true
        monkeypatch.setattr(axis, 'told', torch.compiler.is_compiling)
        monkeypatch.setattr(axis, 'DYNAMO_TELLS', False)
    module = Module(name, grids(name)[0])
    graphs = []

    def backend(traced, _):
        graphs.append(traced.graph)
        return traced.forward

    torch.compiler.reset()
    inputs = inputs_of(name, module.case)
    torch.compile(module, fullgraph=True, backend=backend)(*inputs)
    detached = tuple(x.detach() for x in inputs)
    graphs += [
        torch.export.export(module, detached, strict=strict).graph
        for strict in (True, False)
    ]
    holds = [
        any('axis_attention' in str(n.target) for n in graph.nodes)
        for graph in graphs
    ]
    assert holds == [True, not dynamo_tells, False]


@pytest.mark.parametrize('axes', [[0], [1], [0, 1]], ids=str)
def test_custom_operators_pass_opcheck(axes):
    q, k, v = inputs_of('criss_cross_attention', Case((3, 4)))
    forward = torch.ops.mmseg_attn.axis_attention.default
    library.opcheck(forward, (q, k, v, axes, 0.7, 'torch'))
    out, lse = (x.detach() for x in forward(q, k, v, axes, 0.7, 'torch'))
    tensors = [x.detach() for x in (out, q, k, v, out, lse)]
    library.opcheck(
        torch.ops.mmseg_attn.axis_attention_backward.default,
        (*tensors, axes, 0.7, 'torch'),
    )


@EACH
def test_double_backward_is_right_or_refused(name):
    case = OPERATORS[name].cases[0]
    case = dataclasses.replace(case, batch=1, heads=1, dim=2, value_dim=2)
    inputs = inputs_of(name, case)
    out = call(name, inputs, case)
    if OPERATORS[name].plain:
        assert torch.autograd.gradgradcheck(
            lambda *x: call(name, x, case), inputs
        )
    elif name != 'non_local_attention':  # torch's own operator
        with pytest.raises(RuntimeError, match="backend='reference'"):
            torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
    assert torch.autograd.gradgradcheck(
        lambda *x: call(name, x, case, backend='reference'), inputs
    )


@EACH
def test_declaration(name):
    declared = OPERATORS[name]
    assert getattr(ops, name) is declared.function and name in ops.__all__
    assert list(declared.backends)[-1] == 'reference'
    assert 'https://arxiv.org/abs/' in declared.paper
    address = declared.paper.split()[-1]
    assert address in declared.function.__doc__
    case = declared.benchmark(2, 16, 24, 64)
    assert declared.flops(case) > 0 and declared.bytes(case, 4) > 0
    table = ops.backends('cpu')[name]
    assert list(table) == list(declared.backends)
    assert table['reference'] is None


@EACH
def test_flops_are_those_of_the_products(name):
    """Counted by torch over the products that exporters see."""
    case = OPERATORS[name].benchmark(1, 16, 24, 512)
    inputs = [x.detach() for x in inputs_of(name, case, torch.float32)]
    run = Module(name, case)
    if name == 'non_local_attention':  # torch's kernel is given wider keys
        run.case = dataclasses.replace(case, options=dict(backend='reference'))
    else:
        run = torch.export.export(run, tuple(inputs)).module()
    with FlopCounterMode(display=False) as counter:
        run(*inputs)
    # Beside the products in question: of criss-cross, the own position along
    # the second axis; of linear attention, the denominators.
    declared = OPERATORS[name].flops(case)
    assert counter.get_total_flops() == pytest.approx(declared, rel=0.03)


def change(index, function):
    inputs = [x.detach() for x in inputs_of('axial_attention', Case((4, 5)))]
    inputs[index] = function(inputs[index])
    return inputs


BAD = [
    (change(1, lambda x: x[..., :2]), ValueError, r'\(2, 4, 5, 1, 2\)'),
    (change(2, lambda x: x[:, :3]), ValueError, r'\(2, 3, 5, 1, 5\)'),
    ([x[0, 0] for x in change(0, abs)], ValueError, r'\(B, \*spatial'),
    (change(1, lambda x: x.float()), TypeError, 'float32'),
    ([x.long() for x in change(0, abs)], TypeError, 'int64'),
    (change(2, lambda x: x.numpy()), TypeError, 'ndarray'),
    ([x[:, :0] for x in change(0, abs)], ValueError, 'empty'),
    ([x[..., :0] for x in change(0, abs)], ValueError, 'empty'),
    (change(1, lambda x: x.to('meta')), ValueError, 'meta|one device'),
]


@pytest.mark.parametrize('inputs, error, message', BAD)
@pytest.mark.parametrize(
    'name', [n for n, o in OPERATORS.items() if len(o.tensors) == 3]
)
def test_bad_inputs_are_explained(name, inputs, error, message):
    case = OPERATORS[name].cases[0]
    with pytest.raises(error, match=message):
        call(name, inputs, case)


@EACH
def test_unknown_backend_lists_the_known(name):
    case = OPERATORS[name].cases[0]
    with pytest.raises(ValueError, match="'cuda'.*'torch', 'reference'"):
        call(name, inputs_of(name, case), case, backend='cuda')


@pytest.mark.parametrize(
    'name, options, error, message',
    [
        ('axial_attention', dict(axis=2), ValueError, '-2 to 1, got 2'),
        ('axial_attention', dict(axis=1.0), TypeError, 'float'),
        ('axial_attention', dict(axis=0, scale=None), TypeError, 'multiply'),
        ('criss_cross_attention', dict(scale='1'), TypeError, 'multiply'),
        (
            'channelized_axial_attention',
            dict(axis=0, channel_gate=3),
            TypeError,
            'callable, got int',
        ),
        (
            'channelized_axial_attention',
            dict(axis=0, channel_gate=lambda x: x.mean(1)),
            ValueError,
            r'must return a tensor .* got \(2, 5\)',
        ),
        (
            'interlaced_sparse_attention',
            dict(partition=(8,), span='long'),
            ValueError,
            r'2 positive integers.*got \(8,\)',
        ),
        (
            'interlaced_sparse_attention',
            dict(partition=(8, 0), span='long'),
            ValueError,
            'positive',
        ),
        (
            'interlaced_sparse_attention',
            dict(partition=(2, 2), span='far'),
            ValueError,
            "'long', 'short', got 'far'",
        ),
        (
            'interlaced_sparse_attention',
            dict(partition=(2, 2), span='long', padding='zeros'),
            ValueError,
            "'attend', 'mask', got 'zeros'",
        ),
        (
            'efficient_attention',
            dict(normalization='softmax', divisor=3),
            ValueError,
            'divisor=3',
        ),
        (
            'efficient_attention',
            dict(normalization='dense'),
            ValueError,
            "'softmax', 'scaling', got 'dense'",
        ),
        (
            'linear_attention',
            dict(feature_map='relu'),
            ValueError,
            "'taylor', 'softplus', got 'relu'",
        ),
        ('linear_attention', dict(eps=-1), ValueError, 'got -1'),
        (
            'channel_linear_attention',
            dict(variant='fixed'),
            ValueError,
            "'official', 'corrected', got 'fixed'",
        ),
    ],
)
def test_bad_options_are_explained(name, options, error, message):
    inputs = inputs_of(name, Case((4, 5)))
    with pytest.raises(error, match=message):
        OPERATORS[name].function(*inputs, **options)


def test_backend_that_cannot_run_says_why(monkeypatch):
    chip = declare.Backend(print, lambda device: 'no such chip')
    declared = OPERATORS['axial_attention']
    table = dict(fast=chip, **declared.backends)
    changed = dataclasses.replace(declared, backends=table)
    monkeypatch.setitem(OPERATORS, 'axial_attention', changed)
    with pytest.raises(RuntimeError, match='no such chip'):
        declare.check_backend('axial_attention', 'fast')
    q, k, v = inputs_of('axial_attention', Case((3, 4)))
    with pytest.raises(RuntimeError, match='no such chip'):
        ops.axial_attention(q, k, v, axis=0, backend='fast')
    ops.axial_attention(q, k, v, axis=0)  # takes the next one
