# Copyright (c) mmseg_attn contributors.
"""Pieces of the authors' recipes: backbone, OHEM sampler, mirror test."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import PixelData
from mmseg.models import FCNHead, ResNetV1c
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_attn.models import (
    ClassWeightPixelSampler,
    DeepStemResNet,
    MirrorTTAModel,
    OHEMPixelSampler,
)

SMALL = {
    'depth': 50,
    'base_channels': 4,
    'dilations': (1, 1, 2, 4),
    'strides': (1, 2, 1, 1),
}
MIT = {
    'stem.0': 'conv1',
    'stem.1': 'bn1',
    'stem.3': 'conv2',
    'stem.4': 'bn2',
    'stem.6': 'conv3',
    'stem.7': 'bn3',
}


def randomise(module):
    torch.manual_seed(3)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 1)
    return module


def test_stem_is_that_of_the_paper():
    stem = DeepStemResNet(depth=50).stem
    assert [stem[i].out_channels for i in (0, 3, 6)] == [64, 64, 128]


@pytest.mark.parametrize(
    ('size', 'expected'), [(769, 97), (512, 65), (1024, 129)]
)
def test_map_sizes_are_those_of_the_authors(size, expected):
    model = DeepStemResNet(**SMALL, stem_channels=8, contract_dilation=False)
    model.eval()
    with torch.no_grad():
        maps = model(torch.zeros(1, 3, size, 32))
    assert maps[-1].shape[2] == expected


def test_mit_weights_load_unchanged(tmp_path):
    source = randomise(DeepStemResNet(**SMALL, stem_channels=16))
    theirs = {}
    for key, value in source.state_dict().items():
        layer = '.'.join(key.split('.')[:2])
        theirs[key.replace(layer, MIT.get(layer, layer))] = value
    assert 'conv3.weight' in theirs
    assert not any(key.startswith('stem') for key in theirs)
    path = tmp_path / 'resnet.pth'
    torch.save(theirs, path)

    # As the backbone alone, which is how ImageNet weights come in ...
    model = DeepStemResNet(
        **SMALL,
        stem_channels=16,
        init_cfg={'type': 'Pretrained', 'checkpoint': str(path)},
    )
    model.init_weights()
    # ... and with a prefix, inside a segmentor.
    whole = nn.Module()
    whole.backbone = DeepStemResNet(**SMALL, stem_channels=16)
    prefixed = {f'backbone.{key}': value for key, value in theirs.items()}
    torch.save({'state_dict': prefixed}, path)
    load_checkpoint(whole, str(path), map_location='cpu', strict=True)
    for loaded in (model, whole.backbone):
        for key, value in source.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key


def test_host_weights_load_with_their_stem():
    host = randomise(ResNetV1c(**SMALL, stem_channels=8))
    model = DeepStemResNet(**SMALL, stem_channels=8)
    model.load_state_dict(host.state_dict())
    x = torch.rand(1, 3, 33, 33)
    model.eval()
    host.eval()
    with torch.no_grad():  # odd maps: the pooling is the same
        for ours, theirs in zip(model(x), host(x), strict=True):
            assert torch.equal(ours, theirs)


class Context:
    ignore_index = 255


def brute_force_kept(logits, label, thresh, min_kept):
    prob = logits.softmax(1)
    pixels = sorted(
        (float(prob[b, label[b, 0, y, x], y, x]), (b, y, x))
        for b in range(label.shape[0])
        for y in range(label.shape[2])
        for x in range(label.shape[3])
        if label[b, 0, y, x] != 255
    )
    return pixels, {
        where
        for rank, (p, where) in enumerate(pixels)
        if p <= thresh or rank < min_kept
    }


@pytest.mark.parametrize('min_kept', [0, 1, 30, 10000])
def test_ohem_keeps_the_hard_pixels_and_their_mean(min_kept):
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 4, 7, 5)
    label = torch.randint(0, 4, (2, 1, 7, 5))
    label[0, 0, 2] = 255
    sampler = OHEMPixelSampler(Context, thresh=0.2, min_kept=min_kept)
    weight = sampler.sample(logits, label)
    pixels, kept = brute_force_kept(logits, label, 0.2, min_kept)
    assert {tuple(w.tolist()) for w in weight.nonzero()} == kept
    # The loss of the host with these weights is the mean over the kept.
    loss = MODELS.build(
        {'type': 'mmseg.CrossEntropyLoss', 'avg_non_ignore': True}
    )(logits, label.squeeze(1), weight=weight, ignore_index=255)
    values = [-torch.tensor(p).log() for p, where in pixels if where in kept]
    assert float(loss) == pytest.approx(float(sum(values) / len(values)), 1e-4)


def test_samplers_ignore_what_the_head_does():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 7, 5)
    label = torch.randint(0, 4, (2, 1, 7, 5))
    label[0, 0, 2] = 255
    other = label.masked_fill(label == 255, 9)
    context = nn.Module()
    context.num_classes, context.ignore_index = 4, 9
    usual = nn.Module()
    usual.num_classes, usual.ignore_index = 4, 255
    for kind in (
        partial(OHEMPixelSampler, thresh=0.2, min_kept=30),
        partial(ClassWeightPixelSampler, class_weight=[1.0, 2.0, 3.0, 4.0]),
    ):
        expected = kind(usual).sample(logits, label)
        assert torch.equal(kind(context).sample(logits, other), expected)


def test_ohem_of_one_logit_is_that_of_two():
    """The sigmoid of a logit is the softmax of it and 0."""
    torch.manual_seed(0)
    logit = 3 * torch.randn(2, 1, 7, 5)
    two = torch.cat([torch.zeros_like(logit), logit], 1)
    label = torch.randint(0, 2, (2, 1, 7, 5))
    label[0, 0, 2] = 255
    sampler = OHEMPixelSampler(Context, thresh=0.6, min_kept=20)
    found, expected = (sampler.sample(x, label) for x in (logit, two))
    assert 0 < (expected > 0).sum() < (label != 255).sum()
    assert torch.equal(found, expected)


def test_ohem_inside_a_head_and_with_nothing_labelled():
    init_default_scope('mmseg')
    head = FCNHead(
        in_channels=4,
        channels=4,
        num_classes=3,
        num_convs=1,
        sampler={'type': 'mmseg_attn.OHEMPixelSampler', 'min_kept': 10},
        loss_decode={'type': 'CrossEntropyLoss', 'avg_non_ignore': True},
    )
    assert isinstance(head.sampler, OHEMPixelSampler)
    label = torch.full((1, 8, 8), 255)
    sample = SegDataSample(gt_sem_seg=PixelData(data=label))
    losses = head.loss([torch.rand(1, 4, 8, 8)], [sample], {})
    losses['loss_ce'].backward()
    assert losses['loss_ce'].item() == 0
    assert not head.conv_seg.weight.grad.any()


@pytest.mark.parametrize(
    'wrong', [{'thresh': 0}, {'thresh': 1.5}, {'min_kept': -1}]
)
def test_ohem_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OHEMPixelSampler(Context, **wrong)


def test_weights_of_classes_are_those_of_torch():
    """The loss of a head, with ignored pixels, in each family of hosts."""
    init_default_scope('mmseg')
    weight = [0.8, 1.5, 0.3]
    head = FCNHead(
        in_channels=4,
        channels=4,
        num_classes=3,
        num_convs=1,
        sampler={
            'type': 'mmseg_attn.ClassWeightPixelSampler',
            'class_weight': weight,
        },
        loss_decode={'type': 'CrossEntropyLoss', 'avg_non_ignore': True},
    )
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    label = torch.randint(0, 3, (2, 1, 8, 8))
    label[0, 0, :5] = 255
    data = [SegDataSample(gt_sem_seg=PixelData(data=x)) for x in label]
    found = head.loss_by_feat(logits, data)['loss_ce']
    (gradient,) = torch.autograd.grad(found, logits)
    expected = nn.functional.cross_entropy(
        logits,
        label.squeeze(1),
        weight=torch.tensor(weight),
        ignore_index=255,
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        gradient, torch.autograd.grad(expected, logits)[0]
    )
    label[:] = 255
    assert head.loss_by_feat(logits, data)['loss_ce'] == 0


@pytest.mark.parametrize('wrong', [[1.0] * 18, [1.0] * 18 + [0.0]])
def test_weights_of_classes_are_checked(wrong):
    context = nn.Module()
    context.num_classes = 19
    with pytest.raises(ValueError, match='class_weight'):
        ClassWeightPixelSampler(context, wrong)


SWAP = [(1, 2), (3, 4)]


def segmentor():
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(
        ConfigDict(
            {
                'type': 'EncoderDecoder',
                'data_preprocessor': {
                    'type': 'SegDataPreProcessor',
                    'mean': [127.0] * 3,
                    'std': [60.0] * 3,
                    'size_divisor': 1,
                },
                'backbone': {
                    'type': 'ResNetV1c',
                    'depth': 18,
                    'base_channels': 4,
                    'stem_channels': 4,
                    'strides': (1, 1, 1, 1),
                },
                'decode_head': {
                    'type': 'FCNHead',
                    'in_channels': 32,
                    'channels': 8,
                    'num_classes': 6,
                },
                'train_cfg': {},
                'test_cfg': {'mode': 'whole'},
            }
        )
    ).eval()
    # Enough to make the prediction differ from place to place.
    nn.init.normal_(model.decode_head.conv_seg.weight, std=2.0)
    return model


def view(image, flip):
    sample = SegDataSample()
    sample.set_metainfo(
        {
            'ori_shape': image.shape[1:],
            'img_shape': image.shape[1:],
            'flip': flip,
            'flip_direction': 'horizontal' if flip else None,
            'img_path': 'a.png',
        }
    )
    return (image.flip(2) if flip else image), sample


def test_mirror_test_swaps_left_and_right():
    model = segmentor()
    image = torch.randint(0, 256, (3, 24, 40), dtype=torch.uint8)
    with torch.no_grad():
        logits = []
        for flip in (False, True):
            x, sample = view(image, flip)
            result = model.test_step({'inputs': [x], 'data_samples': [sample]})
            logits.append(result[0].seg_logits.data.clone())
        views = [view(image, False), view(image, True)]
        result = MirrorTTAModel(module=model, swap_labels=SWAP).test_step(
            {
                'inputs': [[x] for x, _ in views],
                'data_samples': [[sample] for _, sample in views],
            }
        )
    swapped = logits[1].softmax(0)[[0, 2, 1, 4, 3, 5]]
    truth = (logits[0].softmax(0) + swapped).argmax(0)
    plain = (logits[0].softmax(0) + logits[1].softmax(0)).argmax(0)
    assert torch.equal(result[0].pred_sem_seg.data.squeeze(), truth)
    assert not torch.equal(truth, plain), 'the swap makes no difference here'


@pytest.mark.parametrize(
    'wrong', [[(1, 2), (2, 3)], [(4, 6)], [(1, 2, 3)], [(1, 1)]]
)
def test_mirror_test_checks_the_pairs(wrong):
    with pytest.raises(ValueError, match='swap_labels'):
        MirrorTTAModel(module=segmentor(), swap_labels=wrong)


def test_flip_swaps_the_labels_of_left_and_right():
    """The transform is the hosts'; what it does is what we rely on."""
    init_default_scope('mmseg')
    label = np.array([[0, 14, 15, 255], [16, 17, 18, 19]], np.uint8)
    results = {
        'img': np.zeros((2, 4, 3), np.uint8),
        'gt_seg_map': label.copy(),
        'seg_fields': ['gt_seg_map'],
    }
    flip = Compose(
        [
            {
                'type': 'RandomFlip',
                'prob': 1.0,
                'swap_seg_labels': [(14, 15), (16, 17), (18, 19)],
            }
        ]
    )
    once = flip(copy.deepcopy(results))
    assert once['gt_seg_map'].tolist() == [[255, 14, 15, 0], [18, 19, 16, 17]]
    twice = flip(once)
    assert (twice['gt_seg_map'] == label).all()
