# Copyright (c) mmseg_attn contributors.
"""The host's own segmentors become files, or are refused."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_segmentor import picture

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')
pytest.importorskip('openvino')

from mmseg_attn import load_model, predict
from mmseg_attn.errors import UserError
from mmseg_attn.export import export
from mmseg_attn.runtime import ExportedSegmenter, open_session

NORM = dict(type='BN')
COMMON = dict(num_classes=2, channels=16, norm_cfg=NORM, align_corners=False)
RESNET = dict(
    type='ResNetV1c',
    depth=50,
    base_channels=16,
    stem_channels=8,
    num_stages=1,
    strides=(1,),
    dilations=(1,),
    out_indices=(0,),
    norm_cfg=NORM,
)
LAYERS = {
    'CrissCrossAttention': dict(gamma_init=0.7),
    'InterlacedSparseAttention': dict(
        key_channels=8, value_channels=16, out_channels=16, partition=(4, 4)
    ),
    'EfficientAttention': {},
    'LinearAttention': dict(gamma_init=0.7),
}
HEADS = {
    'FCNHead': {},
    'PSPHead': dict(pool_scales=(1, 2)),
    'ASPPHead': dict(dilations=(1, 2)),
}


@pytest.fixture
def given(trained, tmp_path):
    """Makes a config of other networks, and their random weights."""

    def make(backbone, head):
        config = Config.fromfile(trained.config)
        config.test_dataloader.dataset.pipeline.pop(1)  # resizes
        config.model.backbone = backbone
        config.model.decode_head = {**COMMON, **head}
        torch.manual_seed(0)
        model = load_model(config, None, device='cpu')
        classifier = model.decode_head.conv_seg
        torch.nn.init.normal_(classifier.weight, std=0.5)
        # So that both classes are found.
        _, scores = predict(model, picture(1)[0], scores=True)
        odds = np.log(scores[1] / scores[0])
        classifier.bias.data[1] -= float(np.median(odds))
        path = tmp_path / 'random.pth'
        torch.save({'state_dict': model.state_dict()}, path)
        return config, path

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    'layer, head, ending',
    [
        ('CrissCrossAttention', 'FCNHead', '.onnx'),
        ('InterlacedSparseAttention', 'FCNHead', '.xml'),
        ('EfficientAttention', 'ASPPHead', '.onnx'),
        ('LinearAttention', 'PSPHead', '.pt2'),
    ],
)
def test_layers_in_networks_of_the_host(given, tmp_path, layer, head, ending):
    plugin = dict(
        cfg=dict(type=f'mmseg_attn.{layer}', **LAYERS[layer]),
        stages=(True,),
        position='after_conv2',
    )
    backbone = {**RESNET, 'plugins': [plugin]}
    options = dict(type=head, in_channels=64, in_index=0, **HEADS[head])
    config, checkpoint = given(backbone, options)
    path = tmp_path / f'model{ending}'
    found = export(config, checkpoint, path)
    assert any(type(m).__name__ == layer for m in found.model.modules())
    segmenter = ExportedSegmenter(open_session(path))
    image, _ = picture(1, 75, 101)
    (mask,) = segmenter([segmenter.prepare(image)])
    model = load_model(config, checkpoint, device='cpu')
    expected = predict(model, image)
    assert expected.any() and not expected.all()
    assert (mask != expected).mean() <= 1e-4


def test_swin_is_right_at_one_size(given, tmp_path):
    backbone = dict(
        type='SwinTransformer',
        embed_dims=8,
        depths=(2,),
        num_heads=(1,),
        strides=(4,),
        window_size=4,
        out_indices=(0,),
    )
    head = dict(
        type='UPerHead', in_channels=[8], in_index=[0], pool_scales=(1, 2)
    )
    config, checkpoint = given(backbone, head)
    path = tmp_path / 'model.onnx'
    with pytest.raises(UserError, match='--fixed-size HEIGHT WIDTH'):
        export(config, checkpoint, path)
    assert not path.exists()
    found = export(config, checkpoint, path, fixed_size=(72, 100))
    assert max(item.values for item in found.differences) <= 1e-4
    image, _ = picture(1, 72, 100)
    segmenter = ExportedSegmenter(open_session(path))
    samples = [segmenter.prepare(x) for x in (image, image[:, ::-1])]
    model = load_model(config, checkpoint, device='cpu')
    for sample, mask in zip(samples, segmenter(samples), strict=True):
        np.testing.assert_array_equal(mask, predict(model, sample.picture))
