# Copyright (c) mmseg_attn contributors.
"""Attention put into networks of both hosts."""

import copy

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from mmseg_attn.layers.inserted_attention import InsertedAttention
from mmseg_attn.models.necks import AttentionNeck, LevelAttention

EA = dict(type='mmseg_attn.EfficientAttention')
ZERO = dict(type='mmseg_attn.EfficientAttention', zero_init=True)
# Those that start as the identity, and how.
IDENTITIES = {
    'efficient': dict(layer=ZERO),
    'linear': dict(layer=dict(type='mmseg_attn.LinearAttention')),
    'channel': dict(layer=dict(type='mmseg_attn.ChannelLinearAttention')),
    'criss-cross': dict(
        layer=dict(type='mmseg_attn.CrissCrossAttention'), recurrence=2
    ),
    'interlaced': dict(
        layer=dict(
            type='mmseg_attn.InterlacedSparseAttention',
            key_channels=8,
            value_channels=8,
            out_channels=256,
        ),
        residual=True,
    ),
    'channelized axial': dict(
        layer=dict(
            type='mmseg_attn.ChannelizedAxialAttention',
            channels=256,
            guided_channels=8,
        ),
        residual=True,
    ),
    'non-local': dict(layer=dict(type='NonLocal2d')),
}


@pytest.fixture(
    params=[
        ('mmseg', 'ResNet', {}),
        ('mmseg', 'ResNetV1c', {}),
        ('mmseg', 'ResNeXt', dict(groups=4, base_width=4)),
        ('mmdet', 'ResNet', {}),
        ('mmdet', 'ResNeXt', dict(groups=4, base_width=4)),
    ],
    ids=lambda p: '-'.join(p[:2]),
)
def host(request):
    """Build a host's backbone of 16 base channels."""
    scope, base, options = request.param
    if scope == 'mmdet':
        pytest.importorskip('mmcv._ext', reason='mmdet needs mmcv.ops')
    init_default_scope(scope)
    options = dict(depth=50, base_channels=16, stem_channels=16, **options)

    def build(attentions=None, **kwargs):
        torch.manual_seed(0)
        cfg = dict(**options, **kwargs)
        if attentions is None:
            return MODELS.build(dict(type=base, **cfg))
        return MODELS.build(
            dict(
                type='mmseg_attn.AttentionBackbone',
                base=base,
                attentions=attentions,
                **cfg,
            )
        )

    yield build
    init_default_scope('mmseg')


def maps(model, x):
    model.eval()
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize('before_last', [False, True])
def test_place_is_where_it_was_asked_for(host, before_last):
    """Against the stages run block by block."""
    place = dict(stage=3, before_last=before_last, layer=EA)
    model = host([place])
    model.init_weights()
    plain = host()
    missing = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing.missing_keys
    assert all(
        name.startswith('layer3.attention.')
        for name in missing.unexpected_keys
    )
    x = torch.randn(1, 3, 64, 96)
    found, expected = maps(model, x), maps(plain, x)
    for stage in (0, 1):
        torch.testing.assert_close(found[stage], expected[stage])
    with torch.no_grad():
        middle = found[1]
        blocks = list(plain.layer3)
        attend = model.layer3.attention
        for block in blocks[:-1]:
            middle = block(middle)
        if before_last:
            middle = blocks[-1](attend(middle))
        else:
            middle = attend(blocks[-1](middle))
    torch.testing.assert_close(found[2], middle)
    torch.testing.assert_close(found[3], maps(plain.layer4, middle))
    # The attention does something.
    assert (found[2] - expected[2]).abs().max() > 1e-3


@pytest.mark.parametrize('kind', IDENTITIES)
def test_identity_keeps_the_network(host, kind):
    """Also after weights were initialised as for training."""
    places = [dict(stage=3, **IDENTITIES[kind])]
    model = host(places)
    model.init_weights()
    plain = host()
    plain.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 96)
    for found, expected in zip(maps(model, x), maps(plain, x), strict=True):
        assert torch.equal(found, expected)
    model.train()
    model(x)[-1].square().mean().backward()
    grads = [
        p.grad.abs().max()
        for p in model.layer3.attention.parameters()
        if p.grad is not None
    ]
    assert max(grads) > 0  # it can leave the identity


def test_hosts_modes_hold(host):
    """Checkpointing gives the same gradients; norms stay in eval mode."""
    x = torch.randn(2, 3, 64, 64)
    grads = []
    for with_cp in (False, True):
        model = host(
            [dict(stage=2, layer=EA), dict(stage=4, layer=EA)],
            with_cp=with_cp,
            norm_eval=True,
            frozen_stages=1,
        )
        model.train()
        assert not model.layer1.training
        assert model.layer2.attention.training
        assert not any(
            m.training
            for m in model.modules()
            if isinstance(m, torch.nn.BatchNorm2d)
        )
        model(x)[-1].square().mean().backward()
        grads.append(model.layer2.attention.layer.keys.weight.grad)
        assert all(p.grad is None for p in model.layer1.parameters())
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(stage=5), 'stage must be 1 to 4.*got 5'),
        (dict(stage=0), 'got 0'),
        (dict(stage='layer3'), "got 'layer3'"),
        (dict(stage=3.0), 'got 3.0'),
        (dict(stage=True), 'got True'),
        (dict(stage=1), 'stage 1 would never learn: frozen_stages=1'),
        (
            dict(stage=2, recurrence=0),
            'recurrence must be a whole number of at least 1',
        ),
    ],
)
def test_wrong_places(host, options, message):
    with pytest.raises(ValueError, match=message):
        host([dict(layer=EA, **options)], frozen_stages=1)


def test_more_wrong_places(host):
    with pytest.raises(ValueError, match='one dict: expected a list'):
        host(dict(stage=2, layer=EA))
    for item in (dict(layer=EA), dict(stage=2), 'stage 2'):
        with pytest.raises(ValueError, match='a dict with stage and layer'):
            host([item])
    with pytest.raises(ValueError, match='stage 2 has attention already'):
        host([dict(stage=2, layer=EA)] * 2)
    layer = dict(
        type='mmseg_attn.InterlacedSparseAttention',
        key_channels=8,
        value_channels=8,
        out_channels=99,
    )
    with pytest.raises(ValueError, match='99 output channels, expected 256'):
        host([dict(stage=3, layer=layer)])


@pytest.mark.parametrize(
    ('base', 'options', 'width'),
    [
        ('Res2Net', dict(depth=50, scales=4, base_width=26), 1024),
        ('ResNeSt', dict(depth=50), 1024),
        ('ResNeXt', dict(depth=50, groups=32, base_width=4), 1024),
        ('RegNet', dict(arch='regnetx_400mf'), 160),
    ],
)
def test_relatives_of_the_resnet(base, options, width):
    """Whatever rule the widths of their stages follow."""
    pytest.importorskip('mmcv._ext', reason='mmdet needs mmcv.ops')
    init_default_scope('mmdet')
    model = MODELS.build(
        dict(
            type='mmseg_attn.AttentionBackbone',
            base=base,
            attentions=[dict(stage=3, layer=EA)],
            **options,
        )
    )
    model.train()
    out = model(torch.randn(2, 3, 64, 64))
    assert out[2].shape[1] == width
    assert model.layer3.attention.layer.in_channels == width


def test_base_without_stages():
    init_default_scope('mmseg')
    with pytest.raises(ValueError, match="base='MobileNetV2' has no resid"):
        MODELS.build(
            dict(
                type='mmseg_attn.AttentionBackbone',
                base='MobileNetV2',
                attentions=[],
            )
        )


@pytest.mark.parametrize('kind', IDENTITIES)
def test_every_layer_starts_as_the_identity_on_a_level(kind):
    init_default_scope('mmseg')
    options = dict(in_channels=[4, 8], out_channels=256, num_outs=3)
    neck = AttentionNeck(levels=(0, 2), **IDENTITIES[kind], **options)
    neck.init_weights()
    plain = MODELS.build(dict(type='FPN', **options))
    plain.load_state_dict(neck.state_dict(), strict=False)
    inputs = [torch.randn(1, 4, 16, 24), torch.randn(1, 8, 8, 12)]
    for found, expected in zip(neck(inputs), plain(inputs), strict=True):
        assert torch.equal(found, expected)


def test_loops_and_residual_of_a_level():
    init_default_scope('mmseg')
    options = dict(in_channels=[4, 8], out_channels=16, num_outs=2)
    torch.manual_seed(0)
    neck = AttentionNeck(
        levels=(1,),
        layer=EA,
        recurrence=2,
        residual=True,
        gamma_init=0.5,
        **options,
    )
    plain = MODELS.build(dict(type='FPN', **options))
    plain.load_state_dict(neck.state_dict(), strict=False)
    inputs = [torch.randn(1, 4, 16, 24), torch.randn(1, 8, 8, 12)]
    layer = neck.attention.attentions['1'].layer
    expected = plain(inputs)[1]
    for _ in range(2):
        expected = expected + 0.5 * layer(expected)
    torch.testing.assert_close(neck(inputs)[1], expected)


def test_pretrained_weights_leave_the_start(host, tmp_path):
    """As ImageNet weights of the plain backbone do."""
    plain = host()
    plain.init_weights()
    path = str(tmp_path / 'plain.pth')
    torch.save(plain.state_dict(), path)
    model = host(
        [dict(stage=3, before_last=True, layer=ZERO)],
        init_cfg=dict(type='Pretrained', checkpoint=path),
    )
    model.init_weights()
    x = torch.randn(1, 3, 64, 96)
    for found, expected in zip(maps(model, x), maps(plain, x), strict=True):
        assert torch.equal(found, expected)


def test_parameters_of_the_papers_widths():
    """By hand: queries and keys C/2, values and reprojection C."""
    for channels, expected in ((256, 197_376), (2048, 12_589_056)):
        layer = InsertedAttention(channels, EA)
        count = sum(p.numel() for p in layer.parameters())
        half = channels // 2
        by_hand = 2 * (channels * half + half) + 2 * (channels**2 + channels)
        assert count == by_hand == expected


def test_levels():
    neck = LevelAttention(8, (1, 2), EA)
    inputs = [torch.randn(2, 8, 32 // 2**i, 48 // 2**i) for i in range(4)]
    out = neck(inputs)
    assert isinstance(out, tuple)
    assert out[0] is inputs[0]
    assert out[3] is inputs[3]
    for level in (1, 2):
        expected = neck.attentions[str(level)].layer(inputs[level])
        assert torch.equal(out[level], expected)
    # A layer for each level.
    weights = [neck.attentions[key].layer.keys.weight for key in ('1', '2')]
    assert not torch.equal(*weights)
    with pytest.raises(ValueError, match='the pyramid has 2: expected 0 to 1'):
        neck(inputs[:2])


@pytest.mark.parametrize(
    'levels', [(), (-1,), (1, 1), 1, ('1',), (1.5,), (True,), '12']
)
def test_wrong_levels(levels):
    with pytest.raises(ValueError, match='levels must be different numbers'):
        LevelAttention(8, levels, EA)


def test_same_start_of_levels():
    neck = LevelAttention(8, (0,), ZERO)
    x = torch.randn(1, 8, 9, 7)
    assert torch.equal(neck([x])[0], x)


def test_neck_is_the_hosts_with_attention_behind():
    init_default_scope('mmseg')
    options = dict(in_channels=[4, 8], out_channels=6, num_outs=3)
    torch.manual_seed(0)
    neck = AttentionNeck(levels=(0, 2), layer=EA, **options)
    plain = MODELS.build(dict(type='FPN', **options))
    missing = plain.load_state_dict(neck.state_dict(), strict=False)
    assert not missing.missing_keys
    inputs = [torch.randn(1, 4, 16, 24), torch.randn(1, 8, 8, 12)]
    expected = plain(inputs)
    for copied in (neck, copy.deepcopy(neck)):
        found = copied(inputs)
        assert torch.equal(found[1], expected[1])
        for level in (0, 2):
            attention = copied.attention.attentions[str(level)]
            torch.testing.assert_close(
                found[level], attention(expected[level])
            )
    with pytest.raises(ValueError, match='the pyramid has 3: expected 0 to 2'):
        AttentionNeck(levels=(3,), layer=EA, **options)


def test_neck_that_does_not_say_its_width():
    init_default_scope('mmseg')
    with pytest.raises(ValueError, match="base='Feature2Pyramid' does not"):
        AttentionNeck(
            levels=(0,), layer=EA, base='Feature2Pyramid', embed_dim=4
        )
