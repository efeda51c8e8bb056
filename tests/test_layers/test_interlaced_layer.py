# Copyright (c) mmseg_attn contributors.
import pytest
import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import ISAHead

from mmseg_attn.layers import InterlacedSparseAttention


def close(got, expected, atol=1e-9):
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    'name, partition',
    [
        ('isa_block_13x19_p4x8_eval', (4, 8)),
        ('isa_block_16x24_p8x8_eval', (8, 8)),
        ('isa_block_16x24_p8x8_train', (8, 8)),
    ],
)
def test_equals_the_authors_code(golden, name, partition):
    """Output, gradients, and the statistics after a run in train mode."""
    data = golden(name)
    layer = InterlacedSparseAttention(
        24, 8, 12, 24, partition=partition
    ).double()
    layer.load_state_dict(
        {k[3:]: v for k, v in data.items() if k.startswith('p0.')}
    )
    layer.train(name.endswith('train'))
    x = data['x'].requires_grad_()
    y = layer(x)
    (y * data['w']).sum().backward()
    close(y, data['y'])
    close(x.grad, data['gx'])
    value = 'long_range_sa.f_value.weight'
    close(layer.global_relation.value_project.weight.grad, data[f'g.{value}'])
    after = InterlacedSparseAttention(
        24, 8, 12, 24, partition=partition
    ).double()
    after.load_state_dict(
        {k[2:]: v for k, v in data.items() if k.startswith('p.')}
    )
    for key, value in after.state_dict().items():
        close(layer.state_dict()[key], value)


def host_blocks(head, x, partition):
    """The host's head between its first and last convolution."""
    head.in_conv = head.conv_seg = torch.nn.Identity()
    head.dropout = None
    head.out_conv = Halves()
    return head([x])


class Halves(torch.nn.Module):
    def forward(self, both):
        return both.chunk(2, 1)[0]


@pytest.mark.parametrize('size', [(16, 24), (13, 19), (3, 5)])
def test_equals_the_hosts_head_with_its_weights(size):
    torch.manual_seed(0)
    cfg = dict(norm_cfg=dict(type='BN'), num_classes=2, in_index=0)
    head = ISAHead(
        8, (4, 8), in_channels=16, channels=16, input_transform=None, **cfg
    ).double()
    layer = InterlacedSparseAttention(16, 8, partition=(4, 8)).double()
    state = {k: v for k, v in head.state_dict().items() if '_relation.' in k}
    layer.load_state_dict(state)
    x = torch.randn(2, 16, *size, dtype=torch.float64)
    close(layer(x), host_blocks(head, x, (4, 8)), 1e-10)


def test_masked_padding_ignores_what_lies_outside():
    """A map in the corner of a larger one of its own groups."""
    torch.manual_seed(0)
    layer = InterlacedSparseAttention(8, 4, partition=(4, 4), padding='mask')
    layer.eval()
    with torch.no_grad():
        constant = torch.ones(1, 8, 5, 6)
        out = layer(constant)
    close(out, out[..., :1, :1].expand(out.shape), 1e-5)
    attending = InterlacedSparseAttention(8, 4, partition=(4, 4)).eval()
    attending.load_state_dict(layer.state_dict())
    with torch.no_grad():
        assert attending(constant).std((2, 3)).max() > 1e-4


def test_a_missing_bias_is_missed():
    """It is 0 in official files alone, which have none."""
    layer = InterlacedSparseAttention(8)
    state = layer.state_dict()
    del state['local_relation.value_project.bias']
    with pytest.raises(RuntimeError, match='local_relation.value_project.bi'):
        layer.load_state_dict(state)


def test_channels_last_passes():
    layer = InterlacedSparseAttention(8, partition=(4, 4)).eval()
    x = torch.randn(2, 8, 8, 12)
    last = x.contiguous(memory_format=torch.channels_last)
    close(layer(last), layer(x), 1e-6)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(partition=(8,)), r'two positive integers.*got \(8,\)'),
        (dict(partition=(8, 0)), 'positive'),
        (dict(padding='zeros'), "'attend', 'mask', got 'zeros'"),
        (dict(backend='cuda'), "no backend 'cuda'"),
    ],
)
def test_bad_options_fail_at_build(options, message):
    with pytest.raises(ValueError, match=message):
        InterlacedSparseAttention(8, **options)


@pytest.mark.parametrize('shape', [(2, 4, 8, 8), (8, 8, 8)])
def test_wrong_map_is_explained(shape):
    with pytest.raises(ValueError, match=r'\(B, 8, H, W\)'):
        InterlacedSparseAttention(8)(torch.zeros(shape))


PLACES = dict(long='global', short='local')


def by_hand(block, x, partition, span):
    """Dense attention within groups, from the block's projections."""
    grid = torch.cartesian_prod(*map(torch.arange, x.shape[2:]))
    sides = torch.tensor(partition)
    mark = grid % sides if span == 'long' else grid // sides
    same = (mark[:, None] == mark[None]).all(-1)
    query, key, value = (
        project(x).flatten(2)
        for project in (
            block.query_project,
            block.key_project,
            block.value_project,
        )
    )
    scores = query.mT @ key * query.shape[1] ** -0.5
    weights = scores.masked_fill(~same, -torch.inf).softmax(-1)
    out = (weights @ value.mT).mT.unflatten(2, x.shape[2:])
    return block.output_project(out)


@pytest.mark.parametrize(
    'spans',
    [('long',), ('short',), ('long', 'short'), ('short', 'long')],
    ids=' '.join,
)
def test_halves_alone_and_in_any_order(spans):
    torch.manual_seed(0)
    layer = InterlacedSparseAttention(
        6, 4, out_channels=8, partition=(2, 3), spans=spans
    )
    layer = layer.double().eval()
    x = torch.randn(2, 6, 8, 9, dtype=torch.float64)
    blocks = dict(layer.named_children())
    assert list(blocks) == [f'{PLACES[span]}_relation' for span in spans]
    with torch.no_grad():
        expected = x
        for span in spans:
            block = blocks[f'{PLACES[span]}_relation']
            expected = by_hand(block, expected, (2, 3), span)
        close(layer(x), expected)
        # Where a position looks: in its grid, its window, or anywhere.
        weight = torch.zeros(1, 8, 9, dtype=torch.float64)
        weight[..., 3, 4] = 1
        seen = layer.trace_attention(x[:1], weight)[0] > 0
    y, x = torch.meshgrid(torch.arange(8), torch.arange(9), indexing='ij')
    grid = (y % 2 == 1) & (x % 3 == 1)
    window = (y // 2 == 1) & (x // 3 == 1)
    looked = {('long',): grid, ('short',): window}
    assert torch.equal(seen, looked.get(spans, torch.ones_like(grid)))


@pytest.mark.parametrize(
    'spans', ['long', (), ('long', 'long'), ('far',)], ids=str
)
def test_halves_are_checked(spans):
    with pytest.raises(ValueError, match="spans must be 'long', 'short' or"):
        InterlacedSparseAttention(4, spans=spans)


@pytest.mark.parametrize('size', [(12, 9), (4, 10), (1, 2)], ids=str)
def test_within_parts_of_the_map(size):
    """Each part by itself, filled up with zeros as the map had been."""
    torch.manual_seed(0)
    partition, bins = (2, 3), 3
    layer = InterlacedSparseAttention(6, 4, partition=partition, bins=bins)
    layer = layer.double().eval()
    x = torch.randn(2, 6, *size, dtype=torch.float64)

    def filled(x, sides):
        """The map with zeros around it, and where in it the map is."""
        (height, above), (width, before) = (
            (n, -n % side // 2)
            for n, side in zip(x.shape[2:], sides, strict=True)
        )
        below = -height % sides[0] - above
        behind = -width % sides[1] - before
        inside = slice(above, above + height), slice(before, before + width)
        return F.pad(x, (before, behind, above, below)), (..., *inside)

    whole, inside = filled(x, (bins, bins))
    expected = torch.full_like(whole, torch.nan)
    height, width = (n // bins for n in whole.shape[2:])
    with torch.no_grad():
        for top in range(0, whole.shape[2], height):
            for left in range(0, whole.shape[3], width):
                here = (
                    ...,
                    slice(top, top + height),
                    slice(left, left + width),
                )
                part, own = filled(whole[here], partition)
                for span in ('long', 'short'):
                    block = getattr(layer, f'{PLACES[span]}_relation')
                    part = by_hand(block, part, partition, span)
                expected[here] = part[own]
        close(layer(x), expected[inside])


def test_parts_of_the_map_are_what_is_looked_at():
    torch.manual_seed(0)
    layer = InterlacedSparseAttention(4, partition=(2, 2), bins=2)
    weight = torch.zeros(1, 8, 12)
    weight[0, 1, 7] = 1
    traced = layer.eval().trace_attention(torch.randn(1, 4, 8, 12), weight)[0]
    part = torch.zeros(8, 12, dtype=torch.bool)
    part[:4, 6:] = True
    assert torch.equal(traced > 0, part)
    assert traced.sum() == pytest.approx(1, abs=1e-5)
    assert 'bins=2' in repr(layer)
    assert 'bins' not in repr(InterlacedSparseAttention(4))
    with pytest.raises(ValueError, match='bins=2 needs padding='):
        InterlacedSparseAttention(4, bins=2, padding='mask')


def test_parts_of_maps_of_any_size_are_exported_once():
    layer = InterlacedSparseAttention(4, partition=(2, 2), bins=2).eval()
    dynamic = torch.export.Dim.DYNAMIC
    exported = torch.export.export(
        layer,
        (torch.randn(2, 4, 8, 12),),
        dynamic_shapes=({2: dynamic, 3: dynamic},),
    ).module()
    x = torch.randn(2, 4, 7, 13)
    close(exported(x), layer(x), 1e-5)
