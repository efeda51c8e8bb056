# Copyright (c) mmseg_attn contributors.
"""What holds for each attention head; a new one needs a line in HEADS."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper
from mmengine.runner import set_random_seed
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

# The tool that tables what is tested here has the heads.
sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools/benchmark'))

import heads
from heads import CLASSES

from mmseg_attn.export.network import PictureNetwork
from mmseg_attn.export.writers import (
    WRITERS,
    convert_onnx,
    trace,
    write_onnx,
    write_program,
)
from mmseg_attn.runtime import Card, open_session

pytestmark = pytest.mark.usefixtures('device')
LOSS = dict(type='CrossEntropyLoss', avg_non_ignore=True)
# CE2PHead needs edges: it has tests of its own.
HEADS, ALL = (
    {k: v for k, v in table.items() if k != 'CE2PHead'}
    for table in (heads.HEADS, heads.ALL)
)
# Compiled and exported, which takes most of a minute of some: the others have
# nothing to trace that these have not.
TRACED = [
    *(name for name in HEADS if name != 'MANetHead'),
    'ISAHead, masked',
    'SqueezeAttentionHead, both outputs',
]


def build(name, checkpointed=False, **options):
    """A segmentor with a small ResNet-18 at stride 8."""
    model = heads.segmentor(name, loss_decode=LOSS, **options)
    model['backbone']['with_cp'] = checkpointed
    set_random_seed(0)
    model = MODELS.build(model)
    model.init_weights()
    return model


def batch(height=49, width=33, label=None):
    """Two pictures, the labels in squares that the pictures show."""
    generator = torch.Generator().manual_seed(1)
    given = dict(generator=generator, device='cpu')  # where it draws
    coarse = torch.randint(0, CLASSES, (2, 1, 8, 8), **given)
    labels = coarse.repeat_interleave(16, 2).repeat_interleave(16, 3)
    labels = labels[:, :, :height, :width]
    noise = torch.rand((2, 3, height, width), **given)
    inputs = labels + 0.3 * noise - 2
    if label is not None:
        labels = torch.full_like(labels, label)
    device = torch.get_default_device()
    inputs, labels = inputs.to(device), labels.to(device)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=x)) for x in labels]
    for sample in samples:
        sample.set_metainfo(dict(img_shape=(height, width)))
    return dict(inputs=inputs, data_samples=samples)


def losses_of(model, data):
    losses = model.loss(**data)
    return {k: v for k, v in losses.items() if 'loss' in k}


def train(model, data, steps=1, **wrapper):
    optimizer = dict(type='Adam', lr=0.003)
    cfg = dict(type='OptimWrapper', optimizer=optimizer) | wrapper
    optimizer = build_optim_wrapper(model, cfg)
    totals = []
    for _ in range(steps):
        with optimizer.optim_context(model):
            total = sum(losses_of(model.train(), data).values())
        optimizer.update_params(total)
        totals.append(total.item())
    return totals


def test_none_is_left_out():
    from mmseg_attn.models import decode_heads

    # AttentionHead is CCHead's base; CCHead3D needs clips: a test of its own.
    others = {'AttentionHead', 'CCHead3D'}
    assert set(decode_heads.__all__) - others == set(heads.HEADS)


@pytest.mark.parametrize('name', ALL)
def test_learns(name):
    model = build(name)
    totals = train(model, batch(64, 64), steps=80)
    assert sum(totals[-5:]) / 5 < 0.6 * totals[0]


@pytest.mark.parametrize('name', ALL)
def test_any_size(name):
    model = build(name).eval()
    for size in ((8, 8), (33, 50), (70, 9)):
        with torch.no_grad():
            logits = model.encode_decode(
                torch.randn(1, 3, *size), [dict(img_shape=size)]
            )
        assert logits.shape == (1, CLASSES, *size)
        assert logits.isfinite().all()


@pytest.mark.parametrize('name', ALL)
def test_trains_in_bfloat16(name):
    model = build(name)
    wrapper = dict(type='mmseg_attn.BFloat16OptimWrapper')
    totals = train(model, batch(), steps=2, **wrapper)
    exact = train(build(name), batch(), steps=1)
    assert totals[0] == pytest.approx(exact[0], rel=0.1)
    for key, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all(), key


@pytest.mark.parametrize('name', HEADS)
def test_gradient_checkpointing_changes_nothing(name, device):
    # The order of atomic sums is not kept on a GPU.
    tolerance = dict(rtol=1e-3, atol=1e-4) if device == 'cuda' else {}
    grads = []
    for checkpointed in (False, True):
        model = build(name, checkpointed, dropout_ratio=0).train()
        sum(losses_of(model, batch()).values()).backward()
        grads.append([p.grad for p in model.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize('name', ALL)
def test_a_seed_gives_the_same_training(name, device):
    runs = [train(build(name), batch(), steps=2) for _ in range(2)]
    if device == 'cuda':
        assert runs[0] == pytest.approx(runs[1], rel=1e-3)
    else:
        assert runs[0] == runs[1]


@pytest.mark.parametrize('name', ALL)
def test_state_dict_round_trip(name):
    model = build(name).eval()
    train(model, batch())
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = build(name)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    x = stages(name, 9, 7)
    with torch.no_grad():
        y, z = (m.eval().decode_head(x) for m in (model, other))
    assert torch.equal(y, z)


@pytest.mark.parametrize('name', ALL)
def test_loss_of_extreme_labels(name):
    """Nothing labelled gives 0; one class, the others absent, is finite."""
    model = build(name).train()
    losses = losses_of(model, batch(label=255))
    assert all(value == 0 for value in losses.values()), losses
    sum(losses.values()).backward()
    assert all(p.grad.abs().max() == 0 for p in model.parameters())
    losses = losses_of(model, batch(label=3))
    assert all(value > 0 for value in losses.values()), losses
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('name', HEADS)
def test_ignored_label_is_that_of_the_head(name):
    """Each loss of a head is told which label does not count."""
    ccl = dict(loss_ccl=dict(type='mmseg_attn.CategoryConsistentLoss'))
    options = ccl if name in ('CCHead', 'EAHead', 'LAHead') else {}
    found = []
    for ignored in (255, 7):
        model = build(name, ignore_index=ignored, **options).eval()
        data = batch()
        for sample in data['data_samples']:
            sample.gt_sem_seg.data[:, :20] = ignored
        found.append(losses_of(model, data))
    torch.testing.assert_close(*found)


class Logits(torch.nn.Module):
    """The head alone; stages as the backbone gives them."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, *stages):
        return self.head(stages)


def factors(name):
    """Size of each stage in units of the last one's."""
    return (8, 4, 2, 1) if name in heads.PYRAMIDS else (2, 1, 1, 1)


def stages(name, height, width):
    """Maps as the backbone gives them, the last one of the given size."""
    return tuple(
        torch.randn(2, channels, factor * height, factor * width)
        for channels, factor in zip(
            (8, 16, 32, 64), factors(name), strict=True
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', TRACED)
def test_compiles_in_one_graph(name):
    head = Logits(build(name).decode_head).eval()
    torch.compiler.reset()  # it compiles one function a few times only
    compiled = torch.compile(
        head, fullgraph=True, dynamic=True, backend='aot_eager'
    )
    for size in ((7, 10), (12, 5)):
        x = stages(name, *size)
        with torch.no_grad():
            torch.testing.assert_close(
                compiled(*x), head(*x), atol=1e-5, rtol=1e-4
            )


@pytest.mark.slow
@pytest.mark.parametrize('name', TRACED)
def test_exported_files_agree_at_other_sizes(name, device, tmp_path):
    if device == 'cuda':
        pytest.skip('files are run on the CPU')
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    pytest.importorskip('openvino')
    model = build(name).eval()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():  # as after a training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.running_mean.normal_(generator=generator)
    network = PictureNetwork(model).requires_grad_(False).eval()
    card = Card(tuple('abcde'), ((0, 0, 0),) * CLASSES)
    example = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
    program = trace(network, example, fixed=False)
    files = [tmp_path / f'model{ending}' for ending in WRITERS]
    onnx, program_file, openvino = files
    write_onnx(program, card, onnx)
    write_program(program, card, program_file)
    convert_onnx(onnx, card, openvino)
    sessions = [open_session(path) for path in files]
    for seed, size in enumerate(((2, 49, 33), (1, 70, 105), (3, 64, 41))):
        generator.manual_seed(seed)
        number, height, width = size
        given = dict(dtype=torch.uint8, generator=generator)
        # Squares: noise of single pixels takes the model itself further from
        # its result in float64 than is asked here.
        shape = number, -(-height // 8), -(-width // 8), 3
        pictures = torch.randint(0, 256, shape, **given)
        pictures = pictures.repeat_interleave(8, 1).repeat_interleave(8, 2)
        pictures = pictures[:, :height, :width]
        # The model itself, by the host: no line of the export's.
        inputs = pictures.flip(3).permute(0, 3, 1, 2)
        inputs = model.data_preprocessor({'inputs': list(inputs)})['inputs']
        expected = model(inputs, mode='tensor')
        expected = F.interpolate(expected, size[1:], mode='bilinear')
        expected = expected.detach().numpy()
        most = max(1, np.abs(expected).max())
        for session, bound in zip(sessions, (1e-4, 1e-5, 1e-4), strict=True):
            got = session(pictures.numpy())
            assert got.shape == expected.shape
            assert np.abs(got - expected).max() <= bound * most
            assert (got.argmax(1) != expected.argmax(1)).mean() <= 1e-4
