# Copyright (c) mmseg_attn contributors.
"""What holds for each registered layer; a new one is found by its export."""

import copy
import inspect
import io
from functools import partial

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_attn import layers
from mmseg_attn.layers.projected import ProjectedAttention
from mmseg_attn.ops import axial_attention

pytestmark = pytest.mark.usefixtures('device')
CHANNELS = 16
# Arguments with which an untrained layer does something to 16 channels: those
# of these that it has, and what else it needs.
COMMON = dict(gamma_init=0.5, num_heads=2)
MORE = {
    'ChannelizedAxialAttention': dict(channels=CHANNELS, guided_channels=4),
    'InterlacedSparseAttention': dict(partition=(4, 2)),
}


def options_of(name):
    taken = inspect.signature(getattr(layers, name)).parameters
    common = {key: value for key, value in COMMON.items() if key in taken}
    return common | MORE.get(name, {})


LAYERS = {name: options_of(name) for name in layers.__all__}
# Those that do not attend from position to position.
UNTRACED = {'ChannelLinearAttention', 'GlobalConvolution', 'SqueezeAttention'}
TRACED = [name for name in LAYERS if name not in UNTRACED]
SIZES = [(1, 1), (1, 9), (8, 1), (13, 6), (16, 16)]


def build(name, **options):
    torch.manual_seed(0)
    cfg = dict(type=f'mmseg_attn.{name}', **LAYERS[name])
    layer = MODELS.build({**cfg, 'in_channels': CHANNELS, **options})
    return layer.eval()


@pytest.mark.parametrize('name', LAYERS)
def test_can_be_traced(name):
    traces = hasattr(getattr(layers, name), 'trace_attention')
    assert traces == (name in TRACED), (
        f'the command "attention" draws where {name} looks by its method '
        'trace_attention(x, weight): inherit ProjectedAttention or write '
        'it; name a layer that has no such map in UNTRACED'
    )


def rounding(layer, truth):
    """What fp32 may lose, whatever the order of the sums.

    Half a spacing of the largest value for each term of sums in a row
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section
    3.1): those of all filters, one over channels and one over positions.
    """
    filters = sum(p[0].numel() for p in layer.parameters() if p.ndim > 1)
    terms = filters + CHANNELS + truth[0, 0].numel()
    return terms * torch.finfo(torch.float32).eps / 2 * truth.abs().max()


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('name', LAYERS)
def test_any_size_and_memory_format(name, size):
    layer = build(name)
    x = torch.randn(2, CHANNELS, *size, requires_grad=True)
    y = layer(x)
    assert y.shape == x.shape and not torch.equal(x, y)
    last = layer(x.to(memory_format=torch.channels_last))
    y.square().sum().backward()
    assert x.grad.isfinite().all()
    truth = copy.deepcopy(layer).double()(x.double())
    limit = rounding(layer, truth)
    # Pictures of a batch know nothing of each other.
    for got in (y, last, layer(x[:1])):
        assert (got - truth[: len(got)]).abs().max() <= limit


@pytest.mark.parametrize('name', LAYERS)
def test_trains_in_mixed_precision(name, device):
    layer = build(name).train()
    x = torch.randn(2, CHANNELS, 6, 7)
    exact = layer(x)
    with torch.autocast(device, torch.bfloat16):
        mixed = layer(x)
    assert (mixed - exact).abs().max() < 0.1 * exact.abs().max()
    mixed.float().square().sum().backward()
    parameters = dict(layer.named_parameters())
    assert all(p.grad.isfinite().all() for p in parameters.values())
    assert any(p.grad.abs().sum() > 0 for p in parameters.values())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', LAYERS)
def test_runs_in_half_precision(name, dtype):
    layer = build(name)
    x = torch.randn(2, CHANNELS, 6, 7)
    with torch.no_grad():
        exact = layer(x)
        half = layer.to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    assert (half - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize('name', LAYERS)
def test_is_copied_saved_and_compiled(name):
    layer = build(name)
    other = build(name)
    for parameter in other.parameters():
        parameter.data.fill_(0.1)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(1, CHANNELS, 5, 6)
    y = layer(x)
    assert torch.equal(other(x), y)
    assert torch.equal(copy.deepcopy(layer)(x), y)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.parametrize('host', ['mmseg', 'mmdet'])
def test_plugs_into_a_resnet_stage(host, name):
    if host == 'mmdet':
        pytest.importorskip('mmcv._ext', reason='mmdet needs compiled ops')
    models = pytest.importorskip(f'{host}.models')
    registry = pytest.importorskip(f'{host}.registry')
    assert models
    init_default_scope(host)
    plugin = dict(
        cfg=dict(type=f'mmseg_attn.{name}', **LAYERS[name]),
        stages=(False, False, True, False),
        position='after_conv2',
    )
    cfg = dict(
        type='ResNet',
        depth=50,
        base_channels=CHANNELS // 4,
        plugins=[plugin],
        zero_init_residual=False,
    )
    backbone = registry.MODELS.build(cfg)
    backbone.init_weights()
    kind = getattr(layers, name)
    found = [m for m in backbone.modules() if isinstance(m, kind)]
    assert len(found) == 6
    out = backbone(torch.randn(1, 3, 64, 64))
    out[-1].square().sum().backward()
    grads = [p.grad for p in found[0].parameters()]
    assert any(g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize('name', TRACED)
def test_a_backbone_does_not_change_how_projections_start(name):
    """Its Kaiming initialisation would be larger than torch's own."""
    if not issubclass(getattr(layers, name), ProjectedAttention):
        pytest.skip('has norms after its projections, like the backbone')
    layer = build(name)
    for conv in layer.convs():
        torch.nn.init.constant_(conv.weight, 9.0)
    layer.init_weights()
    for conv in layer.convs():
        assert 0 < conv.weight.abs().max() <= CHANNELS**-0.5


@pytest.mark.parametrize('name', LAYERS)
def test_works_inside_the_attention_head(name):
    head = MODELS.build(
        dict(
            type='mmseg_attn.AttentionHead',
            attention=dict(type=f'mmseg_attn.{name}', **LAYERS[name]),
            in_channels=24,
            channels=CHANNELS,
            num_classes=3,
            norm_cfg=dict(type='BN'),
        )
    )
    out = head([torch.randn(2, 24, 7, 9)])
    out.square().sum().backward()
    assert out.shape == (2, 3, 7, 9)
    assert any(p.grad.abs().sum() > 0 for p in head.attention.parameters())


WITH_NORMS = (
    'ChannelizedAxialAttention',
    'InterlacedSparseAttention',
    'SqueezeAttention',
)


@pytest.mark.parametrize('name', WITH_NORMS)
def test_none_means_no_norm_and_no_activation(name):
    def kinds(**options):
        return {type(m).__name__ for m in build(name, **options).modules()}

    assert {'BatchNorm2d', 'ReLU'} <= kinds()
    assert not {'BatchNorm2d', 'ReLU'} & kinds(norm_cfg=None, act_cfg=None)


@pytest.mark.parametrize(
    'layer',
    [
        dict(type='ChannelizedAxialAttention'),  # 512 by default
        dict(type='InterlacedSparseAttention', out_channels=8),
        dict(type='SqueezeAttention', out_channels=8),
    ],
)
def test_another_width_in_the_attention_head_fails_at_build(layer):
    layer = {**layer, 'type': f'mmseg_attn.{layer["type"]}'}
    with pytest.raises(ValueError, match='expected 16, the channels'):
        MODELS.build(
            dict(
                type='mmseg_attn.AttentionHead',
                attention=layer,
                in_channels=24,
                channels=CHANNELS,
                num_classes=3,
            )
        )


@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.parametrize('shape', [(CHANNELS, 5), (0, CHANNELS, 5, 5)])
def test_wrong_maps_are_explained(name, shape):
    with pytest.raises(ValueError, match=r'got (shape )?\('):
        build(name)(torch.zeros(shape))


@pytest.mark.parametrize('name', LAYERS)
def test_unknown_backend_fails_at_build(name):
    if 'backend' in inspect.signature(getattr(layers, name)).parameters:
        with pytest.raises(ValueError, match="no backend 'cuda'"):
            build(name, backend='cuda')


def matrix(attend, query, key):
    """(n, n), row by query, mean over heads: attention over unit vectors."""
    grid, heads = query.shape[1:-2], query.shape[-2]
    n = grid.numel()
    unit = torch.eye(n, dtype=query.dtype).view(1, *grid, 1, n)
    out = attend(query, key, unit.expand(-1, *grid, heads, n))
    return out.mean(-2).reshape(n, n)


def whole_matrix(layer, x):
    """Of the layer's attentions in a row, by the dense references."""
    if isinstance(layer, ProjectedAttention):
        return matrix(layer.attend, *layer.project(x, layer.convs()[:2]))
    if isinstance(layer, layers.ChannelizedAxialAttention):
        columns, rows = (
            matrix(
                partial(axial_attention, axis=axis, backend='reference'),
                *(2 * [layer._guide(x, axis)]),
            )
            for axis in (0, 1)
        )
        return rows @ columns
    parts = []
    spans = (layer.global_relation, 'long'), (layer.local_relation, 'short')
    for relation, span in spans:
        guides = relation._project(
            x, relation.query_project, relation.key_project
        )
        attend = partial(relation._attend, span=span, **layer.options)
        parts.append(matrix(attend, *guides))
        x = relation(x, span=span, **layer.options)
    return parts[1] @ parts[0]


@pytest.mark.parametrize('name', TRACED)
def test_traced_attention_is_the_transposed_matrix(name):
    layer = build(name).double()
    x = torch.randn(1, CHANNELS, 8, 4, dtype=torch.float64)
    weight = torch.zeros(1, 8, 4, dtype=torch.float64)
    weight[0, 2, 3], weight[0, 7, 0] = 1, 0.5
    with torch.inference_mode():
        traced = layer.trace_attention(x, weight)
    for options in (getattr(layer, 'options', {}), vars(layer)):
        if 'backend' in options:
            options['backend'] = 'reference'
    with torch.no_grad():
        expected = weight.flatten() @ whole_matrix(layer, x)
    torch.testing.assert_close(traced.flatten(), expected)
    assert traced.sum().item() == pytest.approx(1.5, abs=1e-5)
    with pytest.raises(ValueError, match=r'\(1, 8, 4\).*\(1, 4, 8\)'):
        layer.trace_attention(x, torch.zeros(1, 4, 8))


@pytest.mark.parametrize('padding', ['attend', 'mask'])
def test_traced_attention_of_a_padded_map(padding):
    """Zeros beside the map get a share only where they take part."""
    layer = build('InterlacedSparseAttention', padding=padding)
    x = torch.randn(1, CHANNELS, 6, 5)
    weight = torch.zeros(1, 6, 5)
    weight[0, 2, 3] = 1
    total = layer.trace_attention(x, weight).sum()
    assert total < 0.999 if padding == 'attend' else total > 0.999


@pytest.mark.parametrize('name', LAYERS)
def test_prints_its_options(name):
    """Those that its modules do not show, and none that is left open."""
    layer = build(name)
    shown = layer.extra_repr()
    assert '=' in shown and 'None' not in shown
    assert shown in repr(layer)
    if 'backend' in inspect.signature(getattr(layers, name)).parameters:
        assert "backend='torch'" in build(name, backend='torch').extra_repr()
