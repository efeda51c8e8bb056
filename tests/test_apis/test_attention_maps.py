# Copyright (c) mmseg_attn contributors.
import cv2
import numpy as np
import pytest
import torch
from brute_force import criss_cross_matrix
from mmengine.config import Config
from PIL import Image
from tiny_segmentor import config_text, picture
from torch import nn
from torch.nn.functional import interpolate

from mmseg_attn.__main__ import main
from mmseg_attn.apis import attention_maps, draw_attention, load_model
from mmseg_attn.apis.tracing import cells_of, trace
from mmseg_attn.errors import UserError
from mmseg_attn.layers import CrissCrossAttention
from mmseg_attn.visualization.attention import AttentionMaps


@torch.no_grad()
def test_trace_is_the_product_of_the_matrices():
    torch.manual_seed(0)
    layer = CrissCrossAttention(16).double()
    other = CrissCrossAttention(16).double()
    inputs = [torch.randn(1, 16, 5, 7, dtype=torch.double) for _ in range(3)]
    layers = [layer, layer, other]
    expected = torch.zeros(2, 35, dtype=torch.double)
    expected[0, 3 * 7 + 1] = expected[1, 4 * 7 + 6] = 1
    for module, x in reversed(list(zip(layers, inputs, strict=True))):
        expected = expected @ criss_cross_matrix(module, x)
    found = trace(list(zip(layers, inputs, strict=True)), [(3, 1), (4, 6)])
    expected = expected.unflatten(1, (5, 7))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert found.sum((1, 2)).tolist() == pytest.approx([1, 1])


@torch.no_grad()
def test_maps_of_a_trained_model(trained, tmp_path):
    model = load_model(trained.config, trained.checkpoint, device='cpu')
    image, _ = picture(3, 48, 100)
    inputs = []
    hook = model.decode_head.cca.register_forward_pre_hook(
        lambda module, args: inputs.append(args[0].clone())
    )
    pixels = [(0, 0), (99, 47), (70, 11)]
    maps = attention_maps(model, image, pixels)
    hook.remove()
    first, second = (
        criss_cross_matrix(model.decode_head.cca, x) for x in inputs
    )
    # 48x100 becomes 61x128 for the network, 31x64 behind its stem's stride,
    # 16x32 behind the pooling.
    height, width = inputs[0].shape[2:]
    assert maps.cells.shape == (3, 2, height, width)
    np.testing.assert_allclose(maps.cells.sum((-2, -1)), 1, rtol=1e-5)
    shown = maps.on_picture()
    assert shown.shape == (3, 2, 48, 100)
    for index, (x, y) in enumerate(pixels):
        cell = int(y * height / 48) * width + int(x * width / 100)
        one = first[cell].reshape(height, width).numpy()
        two = (second[cell] @ first).reshape(height, width).numpy()
        np.testing.assert_allclose(maps.cells[index, 0], one, atol=1e-6)
        np.testing.assert_allclose(maps.cells[index, 1], two, atol=1e-6)
        assert np.count_nonzero(one) == height + width - 1
        assert np.count_nonzero(two) == height * width
        here = int(y * height / 48), int(x * width / 100)
        assert shown[index, 0, y, x] == maps.cells[index, 0][here]


@pytest.mark.parametrize('align', [False, True])
@pytest.mark.parametrize('padding', [(0, 0), (0, 13), (5, 8)])
@pytest.mark.parametrize('length, size, cells', [(37, 64, 8), (90, 65, 9)])
def test_cell_of_a_pixel(length, size, cells, padding, align):
    """The cell that counts most where logits are enlarged as the host does."""
    inner = size - sum(padding)
    basis = torch.eye(cells, dtype=torch.double)[:, None, :, None]
    grown = interpolate(
        basis, (size, 1), mode='bilinear', align_corners=align
    )[:, :, padding[0] : size - padding[1]]
    assert grown.shape[2] == inner
    share = interpolate(
        grown, (length, 1), mode='bilinear', align_corners=align
    )[:, 0, :, 0]
    found = cells_of(length, size, padding, cells, align)
    own = share[found, torch.arange(length)]
    assert (own >= share.max(0).values - 0.1).all()  # but for near ties
    assert found[0] < found[-1] and (np.diff(found) >= 0).all()


class Shift(nn.Module):
    """A layer in which each cell looks at the cell on its left, cyclically."""

    def forward(self, x):
        return x.roll(1, -1)

    def trace_attention(self, x, weight):
        assert weight.shape == (len(x), weight.shape[1], *x.shape[2:])
        return weight.roll(-1, -1)


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.fine, self.coarse = Shift(), Shift()

    def forward(self, x):
        x = self.fine(nn.functional.avg_pool2d(x, 8))
        return (
            self.coarse(nn.functional.avg_pool2d(x, 2)).repeat(1, 6, 1, 1)[
                :, :16
            ],
        )


@pytest.fixture
def shifting(trained):
    config = Config.fromfile(trained.config)
    config.model.decode_head.update(type='FCNHead', num_convs=1, in_index=0)
    config.model.decode_head.pop('recurrence')
    model = load_model(config, None, device='cpu')
    model.backbone = Backbone()
    return model


def test_layers_of_different_size(shifting):
    image, _ = picture(0, 64, 128)
    maps = attention_maps(shifting, image, [(70, 30)])
    assert maps.cells.shape == (1, 2, 8, 16)
    one, two = maps.cells[0]
    assert one[3, 7] == 1  # left of cell (3, 8) on the fine grid
    # Coarse cell (1, 4) looks at (1, 3): fine rows 2 and 3, columns 6 and
    # 7, whose left neighbours are 5 and 6.
    assert two.sum() == pytest.approx(1)
    assert two[2:4, 5:7].sum() > 0.5
    only = attention_maps(shifting, image, [(70, 30)], 'backbone.coarse')
    assert only.cells.shape == (1, 1, 4, 8) and only.cells[0, 0, 1, 3] == 1


HEADS = {
    'CAAHead': dict(attention_channels=16, attention=dict(guided_channels=4)),
    'CCHead': dict(recurrence=1),
    'EAHead': dict(attention=dict(num_heads=2)),
    'ISAHead': dict(isa_channels=8, down_factor=(4, 3)),
    'LAHead': dict(),
}
STAGES = dict(
    num_stages=4,
    strides=(1, 2, 2, 2),
    dilations=(1, 1, 1, 1),
    out_indices=(0, 1, 2, 3),
)


def with_head(trained, name, **options):
    config = Config.fromfile(trained.config)
    head = config.model.decode_head.to_dict()
    if name != 'CCHead':
        del head['recurrence']
    if name == 'MAResUNetHead':
        config.model.backbone.update(STAGES)
        del head['in_index']
    head.update(HEADS.get(name, {}), type=f'mmseg_attn.{name}', **options)
    config.model.decode_head = head
    return load_model(config, None, device='cpu')


@pytest.mark.parametrize('name', HEADS)
def test_every_head_with_an_attention_that_has_a_map(trained, name):
    torch.manual_seed(0)
    model = with_head(trained, name)
    (layer,) = (
        module
        for module in model.modules()
        if hasattr(module, 'trace_attention')
    )
    inputs = []
    layer.register_forward_pre_hook(
        lambda module, args: inputs.append(args[0].clone())
    )
    image, _ = picture(3, 48, 100)
    maps = attention_maps(model, image, [(70, 11), (3, 40)])
    (x,) = inputs
    height, width = x.shape[2:]
    assert maps.cells.shape == (2, 1, height, width)
    assert (maps.cells >= 0).all()
    total = maps.cells.sum((-2, -1))
    # Where the partition does not divide the map, zeros get a share.
    assert total == pytest.approx(1, abs=0.15 if name == 'ISAHead' else 1e-4)
    weight = torch.zeros(1, height, width)
    weight[0, int(11 * height / 48), int(70 * width / 100)] = 1
    expected = layer.trace_attention(x, weight)[0]
    np.testing.assert_allclose(maps.cells[0, 0], expected, atol=1e-6)
    figure = draw_attention(image, [(70, 11), (3, 40)], maps)
    assert figure.axes[1].get_title().startswith('attention of decode_head.')
    # ISANet's map is of two attentions, some of it beside the map.
    told = ''.join(maps.notes)
    assert ('both halves' in told) == (name == 'ISAHead')
    assert ('Where 4 x 3 windows do not divide' in told) == (name == 'ISAHead')
    below = figure.get_supxlabel().replace('\n', ' ')
    assert below == ' '.join(maps.notes)


@pytest.mark.parametrize(
    ('layers', 'titles'),
    [
        (['layer4.2'], ['attention of layer4.2']),
        (['a'] * 3, ['after 1 loop', 'after 2 loops', 'after 3 loops']),
        (
            ['layer3.2', 'layer4.0', 'head', 'head'],
            [
                'layer3.2',
                'layer4.0 through layer3.2',
                'head, loop 1 through the 2 before',
                'head, loop 2 through the 3 before',
            ],
        ),
    ],
)
def test_titles(layers, titles):
    """On the sheet, four panels in a line; those left over are empty."""
    count = len(layers)
    cells = np.full((1, count, 2, 3), 1 / 6, np.float32)
    half = np.arange(4) // 2, np.arange(6) // 2
    maps = AttentionMaps(cells, *half, layers=tuple(layers))
    assert maps.titles() == titles
    image = np.zeros((4, 6, 3), np.uint8)
    figure = draw_attention(image, [(0, 0)], maps)
    _, *panels = [axis for axis in figure.axes if axis.get_title()]
    shown = [axis.get_title().rpartition('\n')[0] for axis in panels]
    assert [text.replace('\n', ' ') for text in shown] == titles
    lines = {axis.get_subplotspec().rowspan.start for axis in panels}
    assert len(lines) == (2 if count > 3 else 1)


def test_layers_of_a_backbone_by_their_blocks(trained):
    config = Config.fromfile(trained.config)
    config.model.backbone.update(
        STAGES,
        plugins=[
            dict(
                cfg=dict(type='mmseg_attn.CrissCrossAttention'),
                stages=(False, False, True, True),
                position='after_conv2',
            )
        ],
    )
    config.model.backbone.depth = 50
    config.model.decode_head.update(in_channels=256, in_index=3)
    config.model.auxiliary_head.in_channels = 32
    model = load_model(config, None, device='cpu')
    blocks = [f'layer3.{n}' for n in range(6)] + [
        f'layer4.{n}' for n in range(3)
    ]
    image, _ = picture(0, 64, 128)
    maps = attention_maps(model, image, [(70, 30)], 'backbone')
    assert list(maps.layers) == blocks
    assert maps.titles()[1] == 'layer3.1 through layer3.0'
    maps = attention_maps(model, image, [(70, 30)], 'backbone.layer4.2')
    assert maps.titles() == ['attention of layer4.2']
    assert maps.layers == ('layer4.2',)


@pytest.mark.parametrize(
    ('name', 'options', 'one'),
    [
        ('ISAHead', dict(down_factor=[(4, 4), (3, 3)]), 'attentions.1'),
        # On the skips of four stages.
        ('MAResUNetHead', dict(in_channels=[8, 16, 32, 64]), 'attentions.1'),
    ],
)
def test_layers_side_by_side_are_refused(trained, name, options, one):
    model = with_head(trained, name, **options)
    before = {n for n, p in model.named_parameters() if p.requires_grad}
    image, _ = picture(0)
    with pytest.raises(UserError, match='side by side.* --layers'):
        attention_maps(model, image, [(0, 0)])
    maps = attention_maps(model, image, [(0, 0)], f'decode_head.{one}')
    assert maps.cells.shape[:2] == (1, 1)
    after = {n for n, p in model.named_parameters() if p.requires_grad}
    assert before == after


def test_negative_weights_are_refused(trained):
    torch.manual_seed(0)
    model = with_head(
        trained, 'EAHead', attention=dict(normalization='scaling')
    )
    image, _ = picture(0)
    queries = model.decode_head.attention.queries
    with pytest.raises(UserError, match='negative weights'):
        attention_maps(model, image, [(9, 9)])
        # All weights had one sign: now they have the other.
        queries.weight.data.neg_()
        queries.bias.data.neg_()
        attention_maps(model, image, [(9, 9)])


def test_errors(shifting, trained):
    image, _ = picture(0)
    for pixel in [(-1, 0), (64, 0), (0, 64)]:
        with pytest.raises(UserError, match='0 to 63 and y 0 to 63'):
            attention_maps(shifting, image, [pixel])
    with pytest.raises(UserError, match="begins with 'neck'"):
        attention_maps(shifting, image, [(0, 0)], 'neck')
    shifting.backbone.fine = shifting.backbone.coarse = nn.Identity()
    with pytest.raises(UserError, match='CrissCrossAttention.*decode_head'):
        attention_maps(shifting, image, [(0, 0)])
    assert not any(m._forward_pre_hooks for m in shifting.modules())


def test_command(trained, tmp_path, capsys):
    source = tmp_path / 'a b.png'
    image, mask = picture(3)
    cv2.imwrite(str(source), image)
    # A pixel of the disc that is none when x and y change places.
    y, x = next(
        place for place in np.argwhere(mask) if not mask.T[tuple(place)]
    )
    out = tmp_path / 'new folder' / 'figure.png'
    command = ['attention', trained.config, trained.checkpoint, str(source)]
    command += ['--device', 'cpu', '--pixel', str(x), str(y)]
    assert not main([*command, '--pixel', '0', '63', '-o', str(out)])
    figure = np.array(Image.open(out).convert('RGB'))
    assert figure.shape[1] > 1000 and figure.std() > 20
    said = capsys.readouterr().out
    assert f'pixel ({x}, {y}), disc, after 1 loop:' in said
    assert 'pixel (0, 63), ground, after 2 loops' in said
    assert said.count('sum 1.0000\n') == 4

    before = out.read_bytes()
    for path, message in [
        (out, 'replace it with --overwrite'),
        (source, 'is the picture itself'),
        (tmp_path / 'figure.txt', 'must end in one of .png'),
    ]:
        with pytest.raises(SystemExit, match=message):
            main([*command, '-o', str(path)])
    assert out.read_bytes() == before
    assert not main([*command, '-o', str(out), '--overwrite'])
    assert out.read_bytes() != before  # one row instead of two

    plain = tmp_path / 'fcn.py'
    text = config_text('.').replace("'mmseg_attn.CCHead'", "'FCNHead'")
    plain.write_text(text.replace('recurrence=2,', ''))
    weights = tmp_path / 'fcn.pth'
    torch.save(load_model(str(plain), None).state_dict(), weights)
    with pytest.raises(SystemExit, match='no attention layer'):
        main(['attention', str(plain), str(weights), *command[3:]])
