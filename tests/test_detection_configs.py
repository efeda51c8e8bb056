# Copyright (c) mmseg_attn contributors.
"""Configs of detectors: what their names say, and one step of training."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

pytest.importorskip('mmdet')
ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
    path
    for folder in ('mask_rcnn', 'faster_rcnn')
    for path in ROOT.glob(f'configs/{folder}/*.py')
)
HOST = Path(pytest.importorskip('mmdet').__path__[0]) / '.mim/configs'
NAME = re.compile(
    r'(mask-rcnn|faster-rcnn)_(r50|r101|x101-32x4d)'
    r'-(ea1|ea5|ea7|nl|nl1|nl5|nl7|rcca|isa|ea1-scaling|ea1-h8|ea1-h32|'
    r'ea-res3|ea-p[2-6])_fpn_(1x|2x)_coco'
)
# What stands in a name -> stages of the backbone, levels of the pyramid.
PLACES = {
    '1': ([3], []),
    '5': ([2, 3], [2, 3, 4]),
    '7': ([2, 3], [0, 1, 2, 3, 4]),
    'res3': ([2], []),
    **{f'p{i}': ([], [i - 2]) for i in range(2, 7)},
}
# Of the layer, beside what the others of its kind have.
OPTIONS = {
    'scaling': dict(normalization='scaling'),
    'h8': dict(num_heads=8),
    'h32': dict(num_heads=32),
}
LAYERS = {
    'ea': 'EfficientAttention',
    'nl': 'NonLocal2d',
    'rcca': 'CrissCrossAttention',
    'isa': 'InterlacedSparseAttention',
}
STEPS = [
    'mask-rcnn_r50-ea7_fpn_2x_coco',
    'mask-rcnn_r50-nl5_fpn_1x_coco',
    'mask-rcnn_r50-rcca_fpn_1x_coco',
    'faster-rcnn_r50-isa_fpn_1x_coco',
]
# Too large to be trained here: built without memory for their weights.
BUILT = [
    'mask-rcnn_x101-32x4d-ea7_fpn_1x_coco',
    'faster-rcnn_r101-ea1_fpn_1x_coco',
]


def find(name: str) -> Path:
    return next(path for path in CONFIGS if path.stem == name)


@pytest.fixture
def detection():
    pytest.importorskip('mmcv._ext', reason='mmdet needs mmcv.ops')
    init_default_scope('mmdet')
    yield
    init_default_scope('mmseg')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_lies_in_the_folder_of_its_detector(path):
    detector = NAME.fullmatch(path.stem)[1]
    assert path.parent.name == detector.replace('-', '_')


def of_faster_rcnn(path: Path) -> str:
    """A config of Mask R-CNN with the one line changed that README shows."""
    text = path.read_text()
    assert text.count('mask_rcnn/mask-rcnn') == 1
    return text.replace('mask_rcnn/mask-rcnn', 'faster_rcnn/faster-rcnn')


def test_any_of_mask_rcnn_becomes_one_of_faster_rcnn_by_one_line(tmp_path):
    found = [p for p in CONFIGS if p.parent.name == 'faster_rcnn']
    assert found
    for path in found:
        theirs = find(path.stem.replace('faster-', 'mask-'))
        assert path.read_text() == of_faster_rcnn(theirs)
    text = of_faster_rcnn(find('mask-rcnn_x101-32x4d-ea7_fpn_2x_coco'))
    other = tmp_path / 'other.py'
    other.write_text(text.replace("'../", f"'{ROOT}/configs/"))
    cfg = Config.fromfile(other)
    assert cfg.model.type == 'FasterRCNN'
    assert cfg.train_cfg.max_epochs == 24
    assert cfg.model.neck.levels == (0, 1, 2, 3, 4)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_name_says_what_is_inside(path):
    """Against the host's config of the same name without the attention."""
    detector, backbone, attention, schedule = NAME.fullmatch(
        path.stem
    ).groups()
    ours = Config.fromfile(path).to_dict()
    name = f'{detector}_{backbone}_fpn_{schedule}_coco.py'
    theirs = Config.fromfile(HOST / path.parent.name / name).to_dict()
    kind, number, suffix = re.fullmatch(
        r'([a-z]+)(\d?)-?(\w*)', attention
    ).groups()
    stages, levels = PLACES.get(suffix, PLACES.get(number, ([3], [])))
    body, places = ours['model']['backbone'], []
    if stages:
        assert body.pop('type') == 'mmseg_attn.AttentionBackbone'
        body['type'] = body.pop('base', 'ResNet')
        places = body.pop('attentions')
    assert [place['stage'] for place in places] == stages
    layers = [place['layer'] for place in places]
    neck = ours['model']['neck']
    if levels:
        assert neck.pop('type') == 'mmseg_attn.AttentionNeck'
        neck['type'] = 'FPN'
        assert list(neck.pop('levels')) == levels
        layers.append(neck.pop('layer'))
    types = {layer['type'].split('.')[-1] for layer in layers}
    assert types == {LAYERS[kind]}
    inside = attention in ('rcca', 'isa', 'nl')
    for place in places:
        assert place.get('before_last', False) is inside
        assert place.get('recurrence', 1) == (2 if kind == 'rcca' else 1)
        # Layers that are no identity at the start get a number from 0 on.
        assert place.get('residual', False) is (kind == 'isa')
    for layer in layers:
        assert layer.get('zero_init', False) is (kind == 'ea')
        options = ('normalization', 'num_heads')
        given = {key: layer[key] for key in options if key in layer}
        assert given == OPTIONS.get(suffix, {})
    for variable in ('attentions', 'levels', 'layer'):
        ours.pop(variable, None)
    assert ours == theirs


def batch(masks: bool) -> dict:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for _ in range(2):
        inputs.append(
            torch.randint(0, 256, (3, 96, 128), generator=generator).byte()
        )
        boxes = torch.tensor([[8.0, 8, 60, 70], [50, 20, 120, 90]])
        instances = InstanceData(bboxes=boxes, labels=torch.tensor([3, 17]))
        if masks:
            grid = torch.zeros(2, 96, 128).byte()
            for mask, box in zip(grid, boxes.int(), strict=True):
                mask[box[1] : box[3], box[0] : box[2]] = 1
            instances.masks = BitmapMasks(grid.numpy(), 96, 128)
        sample = DetDataSample(gt_instances=instances)
        size = (96, 128)
        sample.set_metainfo(
            dict(
                img_shape=size,
                ori_shape=size,
                pad_shape=size,
                batch_input_shape=size,
                scale_factor=(1.0, 1.0),
            )
        )
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.slow
@pytest.mark.parametrize('name', STEPS)
def test_trains_one_step(name, detection):
    cfg = Config.fromfile(find(name))
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    places = [
        parameter
        for key, parameter in model.named_parameters()
        if '.attention' in key
    ]
    before = [parameter.detach().clone() for parameter in places]
    losses = model.train_step(batch('mask' in name), wrapper)
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert ('loss_mask' in losses) is ('mask' in name)
    # Of each attention something was learned.
    changed = [
        not torch.equal(old, new)
        for old, new in zip(before, places, strict=True)
    ]
    number = int(name.split('-')[-1][2]) if re.search('ea|nl', name) else 1
    assert sum(changed) >= number
    model.eval()
    with torch.no_grad():
        results = model.test_step(batch('mask' in name))
    assert len(results) == 2


@pytest.mark.parametrize('name', BUILT)
def test_builds(name, detection):
    cfg = Config.fromfile(find(name))
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    groups = 32 if 'x101' in name else 1
    assert model.backbone.layer3[22].conv2.groups == groups
    assert len(model.backbone.layer3) == 23 + 1


def test_zero_initialised_modules_give_the_plain_detector(detection):
    """The whole Mask R-CNN: boxes, scores and masks, to the bit."""
    cfg = Config.fromfile(find('mask-rcnn_r50-ea7_fpn_1x_coco'))
    host = HOST / 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    plain_cfg = Config.fromfile(host)
    models = []
    for item in (plain_cfg, cfg):
        item.model.backbone.init_cfg = None
        item.model.test_cfg.rcnn.score_thr = 0.0
        torch.manual_seed(0)
        model = MODELS.build(item.model)
        model.init_weights()
        models.append(model.eval())
    plain, ours = models
    with torch.no_grad():
        plain.roi_head.bbox_head.fc_cls.weight.normal_(0, 0.5)
    keys = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not keys.unexpected_keys
    assert all('.attention' in key for key in keys.missing_keys)
    with torch.no_grad():
        results = [model.test_step(batch(True)) for model in (plain, ours)]
    for expected, found in zip(*results, strict=True):
        expected, found = expected.pred_instances, found.pred_instances
        assert len(expected) > 10
        for key in ('bboxes', 'scores', 'labels', 'masks'):
            assert torch.equal(expected[key], found[key])
