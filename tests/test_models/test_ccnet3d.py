# Copyright (c) mmseg_attn contributors.
"""CCNet3D: CCNet along time, too."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.runner import BaseLoop
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_attn.engine.check_setup import CheckSetupHook
from mmseg_attn.engine.checkpoint import load_weights
from mmseg_attn.errors import UserError
from mmseg_attn.layers import CrissCrossAttention
from mmseg_attn.models import CCHead3D

NORM = dict(type='BN', requires_grad=True)
BACKBONE = dict(
    type='ResNet',
    depth=18,
    stem_channels=8,
    base_channels=8,
    num_stages=2,
    strides=(1, 2),
    dilations=(1, 1),
    out_indices=(0, 1),
    norm_cfg=NORM,
)
HEAD = dict(
    in_channels=16,
    in_index=1,
    channels=8,
    num_classes=3,
    norm_cfg=NORM,
    align_corners=False,
    loss_decode=dict(type='CrossEntropyLoss'),
)
AUXILIARY = dict(type='FCNHead', num_convs=1, **HEAD) | dict(
    in_channels=8, in_index=0
)


def build(kind, head, **kwargs):
    clip = kind == 'mmseg_attn.ClipEncoderDecoder'
    name = 'mmseg_attn.ClipDataPreProcessor' if clip else 'SegDataPreProcessor'
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type=kind,
            data_preprocessor=dict(
                type=name, mean=[0.0] * 3, std=[1.0] * 3, size_divisor=1
            ),
            backbone=BACKBONE,
            decode_head={**HEAD, **head},
            auxiliary_head=copy.deepcopy(AUXILIARY),
            train_cfg=dict(),
            test_cfg=ConfigDict(mode='whole'),
            **kwargs,
        )
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
        if isinstance(module, CrissCrossAttention):
            module.gamma.scale.data.fill_(0.7)
    return model.eval()


def clip_model(recurrence=2, **kwargs):
    head = dict(type='mmseg_attn.CCHead3D', recurrence=recurrence)
    return build('mmseg_attn.ClipEncoderDecoder', head, **kwargs)


def samples(number, height, width, **meta):
    result = []
    for index in range(number):
        label = torch.randint(0, 3, (1, height, width))
        sample = SegDataSample(gt_sem_seg=PixelData(data=label))
        size = (height, width)
        sample.set_metainfo(
            dict(ori_shape=size, img_shape=size, img_path=f'{index}', **meta)
        )
        result.append(sample)
    return result


def test_one_frame_is_ccnet(tmp_path):
    """A 2D checkpoint loads, and gives the same logits."""
    flat = build('EncoderDecoder', dict(type='mmseg_attn.CCHead'))
    torch.save({'state_dict': flat.state_dict()}, tmp_path / 'flat.pth')
    model = clip_model()
    for parameter in model.parameters():
        parameter.data.normal_()
    load_weights(model, tmp_path / 'flat.pth')
    assert list(model.state_dict()) == list(flat.state_dict())
    pictures = torch.randn(2, 3, 32, 40)
    with torch.no_grad():
        expected, found = flat(pictures), model(pictures[:, :, None])
        assert expected.std() > 1e-3
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        expected = flat.predict(pictures)[1].seg_logits.data
        found = model.predict(pictures[:, :, None])[1].seg_logits.data
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def dense_layer(layer, x):
    """softmax over all positions that share two of three coordinates."""
    size = x.shape[2:]
    with torch.no_grad():
        query, key, value = (
            conv(x).flatten(2)
            for conv in (layer.query_conv, layer.key_conv, layer.value_conv)
        )
    grid = torch.stack(
        torch.meshgrid(*map(torch.arange, size), indexing='ij'), -1
    ).reshape(-1, 3)
    shared = (grid[:, None] == grid[None]).sum(-1) >= 2
    # T + H + W - 2 keys for each query, itself once.
    assert (shared.sum(1) == sum(size) - 2).all()
    scores = torch.einsum('bcq,bck->bqk', query, key)
    weights = scores.masked_fill(~shared, -torch.inf).softmax(-1)
    out = torch.einsum('bqk,bck->bcq', weights, value).reshape(x.shape)
    return x + layer.gamma.scale * out


@pytest.mark.parametrize('recurrence', [1, 3])
def test_head_against_brute_force(recurrence):
    model = clip_model(recurrence).double()
    head = model.decode_head
    x = torch.randn(2, 16, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        reduced = torch.stack(
            [head.convs[0](x[:, :, t]) for t in range(4)], dim=2
        )
        assert torch.equal(head.reduce(x), reduced)
        for _ in range(recurrence):
            reduced = dense_layer(head.cca, reduced)
        y = head.convs[1](reduced[:, :, 2])
        y = head.conv_cat(torch.cat([x[:, :, 2], y], dim=1))
        expected = head.conv_seg(y)
        found = head([torch.empty(0), x])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(('recurrence', 'all_seen'), [(2, False), (3, True)])
def test_reach(recurrence, all_seen):
    """Two loops miss what shares no coordinate; three see the clip."""
    head = clip_model(recurrence).decode_head.double()
    # Weights that cancel nothing.
    head.cca.value_conv.weight.data.abs_()
    reduced = torch.rand(1, 8, 3, 4, 5, dtype=torch.float64)
    reduced.requires_grad_()
    head.attend(reduced)[0, :, 1, 1, 1].sum().backward()
    seen = reduced.grad[0].abs().sum(0) > 1e-12
    grid = torch.stack(
        torch.meshgrid(*map(torch.arange, (3, 4, 5)), indexing='ij'), -1
    )
    expected = (grid == 1).any(-1) | all_seen
    assert torch.equal(seen, expected)


def test_loss_and_gradients():
    """Of the labelled frame alone, and into all frames."""
    model = clip_model(3).train()
    clips = torch.randn(2, 3, 5, 16, 24, requires_grad=True)
    losses = model.loss(clips, samples(2, 16, 24, label_frame=2))
    assert {'decode.loss_ce', 'aux.loss_ce'} <= set(losses)
    losses['decode.loss_ce'].backward(retain_graph=True)
    assert (clips.grad.abs().amax((0, 1, 3, 4)) > 0).all()
    clips.grad = None
    losses['aux.loss_ce'].backward()
    # The auxiliary head sees a frame; batch norm sees them all.
    model.eval()
    clips.grad = None
    model.loss(clips, samples(2, 16, 24))['aux.loss_ce'].backward()
    other = [0, 1, 3, 4]
    assert not clips.grad[:, :, other].any() and clips.grad[:, :, 2].any()


def test_sliding_windows():
    """Each window is a clip: as by hand."""
    model = clip_model()
    clip = torch.randn(1, 3, 3, 32, 40)
    with torch.no_grad():
        whole = model.predict(clip)[0].seg_logits.data
        model.test_cfg.update(
            mode='slide', crop_size=(32, 24), stride=(32, 16)
        )
        found = model.predict(clip)[0].seg_logits.data
        left = model.encode_decode(clip[..., :24], [dict(img_shape=(32, 24))])
        right = model.encode_decode(clip[..., 16:], [dict(img_shape=(32, 24))])
    assert (found - whole).abs().max() > 1e-4
    torch.testing.assert_close(found[..., :16], left[0, ..., :16])
    torch.testing.assert_close(found[..., 24:], right[0, ..., 8:])
    both = (left[0, ..., 16:] + right[0, ..., :8]) / 2
    torch.testing.assert_close(found[..., 16:24], both)


@pytest.mark.parametrize('label_frame', [None, 0, 4])
def test_frame_by_frame_is_the_clip(label_frame):
    model = clip_model(3, label_frame=label_frame)
    frame = 2 if label_frame is None else label_frame
    clip = torch.randn(1, 3, 5, 32, 40)
    metas = [dict(img_shape=(32, 40), ori_shape=(32, 40))]
    with torch.no_grad():
        expected = model.encode_decode(clip, metas)
        parts = [model.encode_frame(clip[:, :, t : t + 1]) for t in range(5)]
        reduced = [part[1] for part in parts]
        found = model.decode_frames(parts[frame][0], reduced, metas)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_what_does_not_fit():
    model = clip_model(label_frame=3)
    for label_frame in (3, -1):
        model.label_frame = label_frame
        with pytest.raises(UserError, match=f'is {label_frame}, but the clip'):
            model.predict(torch.randn(1, 3, 2, 32, 32))
    model.label_frame = 3
    with pytest.raises(UserError, match='is frame 1 of its clip .* frame 3'):
        model.predict(
            torch.randn(1, 3, 5, 32, 32), samples(1, 32, 32, label_frame=1)
        )
    with pytest.raises(ValueError, match='input_transform must be None'):
        CCHead3D(**HEAD, input_transform='resize_concat')
    data = dict(
        inputs=[torch.zeros(3, 2, 8, 8), torch.zeros(3, 1, 8, 8)],
        data_samples=samples(2, 8, 8),
    )
    with pytest.raises(ValueError, match='as many pictures in each'):
        model.data_preprocessor(data, training=True)


class Loop(BaseLoop):
    def __init__(self, dataset):
        self.dataloader = SimpleNamespace(dataset=dataset, batch_size=1)

    def run(self):
        pass


def test_label_frame_of_all_datasets():
    """Before the first iteration, that of the validation as well."""
    val = SimpleNamespace(frames=5, label_frame=3)
    runner = SimpleNamespace(
        model=clip_model(label_frame=3),
        _train_loop=Loop(SimpleNamespace(frames=4, label_frame=3)),
        _val_loop=Loop(val),
        _test_loop=None,
    )
    CheckSetupHook().before_run(runner)
    val.label_frame = 2
    with pytest.raises(UserError, match='frame 2 of 5 .* segments frame 3'):
        CheckSetupHook().before_run(runner)


def test_preprocessor_is_the_hosts(tmp_path):
    """Each frame as mmseg treats a picture; labels are padded, too."""
    options = dict(
        mean=[10.0, 20.0, 30.0], std=[2.0, 3.0, 4.0], bgr_to_rgb=True
    )
    options |= dict(size=(24, 32), pad_val=0, seg_pad_val=255)
    options['test_cfg'] = dict(size_divisor=16)
    kinds = ('mmseg_attn.ClipDataPreProcessor', 'SegDataPreProcessor')
    ours, theirs = (MODELS.build(dict(type=k, **options)) for k in kinds)
    clips = [torch.randint(0, 256, (3, 4, 20, 24 + 4 * i)) for i in range(2)]
    clips = [clip.to(torch.uint8) for clip in clips]
    labels = [*samples(1, 20, 24), *samples(1, 20, 28)]
    for training, chosen in ((True, [0, 1]), (False, [0])):
        found = ours(
            dict(
                inputs=[clips[i] for i in chosen],
                data_samples=[copy.deepcopy(labels[i]) for i in chosen],
            ),
            training,
        )
        for t in range(4):
            expected = theirs(
                dict(
                    inputs=[clips[i][:, t] for i in chosen],
                    data_samples=[copy.deepcopy(labels[i]) for i in chosen],
                ),
                training,
            )
            assert torch.equal(found['inputs'][:, :, t], expected['inputs'])
        for one, other in zip(
            found['data_samples'], expected['data_samples'], strict=True
        ):
            assert torch.equal(one.gt_sem_seg.data, other.gt_sem_seg.data)
            assert one.metainfo == other.metainfo
