# Copyright (c) mmseg_attn contributors.
"""Each method on each benchmark under one recipe: what the configs resolve to.

Data, schedules and losses are in recipes.py; here is what each benchmark and
each method adds. That each config trains is in test_configs.py, that its data
are read in test_datasets/test_pipelines.py.
"""

import copy
import inspect
from pathlib import Path
from typing import NamedTuple

import mmseg
import pytest
from all_configs import ROOT, parsed
from mmengine.config import Config
from mmseg.models import SwinTransformer

HOST = Path(mmseg.__path__[0]) / '.mim' / 'configs'
# Folder -> what makes its head.
METHODS = {
    'ccnet': dict(type='CCHead', channels=512, recurrence=2),
    'caanet': dict(
        type='CAAHead',
        channels=256,
        attention_channels=512,
        attention=dict(guided_channels=64),
    ),
    'sanet': dict(type='SqueezeAttentionHead', channels=128),
    'isanet': dict(
        type='ISAHead', channels=512, isa_channels=256, down_factor=(8, 8)
    ),
    'eanet': dict(type='EAHead', channels=512, recurrence=1),
    'lanet': dict(type='LAHead', channels=512, recurrence=1),
}


class Benchmark(NamedTuple):
    """Data, crop, batch per GPU and iterations in thousands."""

    dataset: str
    classes: int
    crop: tuple[int, int]
    resized: tuple[int, int] | None  # before the random scale
    batch: int
    iterations: int


BENCHMARKS = {
    'cityscapes': Benchmark(
        'CityscapesDataset', 19, (512, 1024), (2048, 1024), 2, 80
    ),
    'ade20k': Benchmark('ADE20KDataset', 150, (512, 512), (2048, 512), 4, 80),
    'voc12aug': Benchmark(
        'PascalVOCDataset', 21, (512, 512), (2048, 512), 4, 40
    ),
    'pascal-context-59': Benchmark(
        'PascalContextDataset59', 59, (480, 480), (520, 520), 4, 80
    ),
    'coco-stuff10k': Benchmark(
        'COCOStuffDataset', 171, (512, 512), (2048, 512), 4, 40
    ),
    'coco-stuff164k': Benchmark(
        'COCOStuffDataset', 171, (512, 512), (2048, 512), 4, 80
    ),
    'lip': Benchmark('LIPDataset', 20, (473, 473), None, 10, 115),
    'camvid': Benchmark(
        'mmseg_attn.CamVidDataset', 11, (720, 720), (960, 720), 2, 20
    ),
    'vaihingen': Benchmark('ISPRSDataset', 6, (512, 512), (512, 512), 4, 80),
    'potsdam': Benchmark('PotsdamDataset', 6, (512, 512), (512, 512), 4, 80),
}
LAND_COVER = ('vaihingen', 'potsdam')
MODERN = ('cityscapes', 'ade20k')


def read(method: str, backbone: str, data: str) -> Config:
    it = BENCHMARKS[data]
    height, width = it.crop
    stem = (
        f'{method}_{backbone}_4xb{it.batch}-{it.iterations}k_{data}-'
        f'{height}x{width}'
    )
    path = ROOT / 'configs' / method / f'{stem}.py'
    return copy.deepcopy(parsed(path))


def without(mapping: dict, *keys: str) -> dict:
    return {key: value for key, value in mapping.items() if key not in keys}


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('data', BENCHMARKS)
def test_equal_recipe(data, method):
    cfg, it = read(method, 'r50-d8', data), BENCHMARKS[data]
    model, iterations = cfg.model, 1000 * it.iterations

    # The data and what they are resized to; all else is in recipes.py.
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        parts = dataset.get('datasets', [dataset])
        assert {part.type for part in parts} == {it.dataset}
    parts = cfg.train_dataloader.dataset
    for part in parts.get('datasets', [parts]):
        steps = {step.type: step for step in part.pipeline}
        if it.resized:
            assert steps['RandomResize'].scale == it.resized
            assert 'PhotoMetricDistortion' in steps
    assert model.data_preprocessor.size == it.crop
    metric = dict(type='IoUMetric', iou_metrics=['mIoU'])
    if data in LAND_COVER:
        five = 'impervious_surface building low_vegetation tree car'
        metric = dict(
            type='mmseg_attn.LandCoverMetric', averaged_classes=five.split()
        )
    assert cfg.val_evaluator == cfg.test_evaluator == metric
    # --tta works, on LIP with left and right exchanged.
    kind = 'mmseg_attn.MirrorTTAModel' if data == 'lip' else 'SegTTAModel'
    assert cfg.tta_model.type == kind
    assert cfg.tta_pipeline[-1].type == 'TestTimeAug'

    assert cfg.train_cfg == dict(
        type='IterBasedTrainLoop',
        max_iters=iterations,
        val_interval=iterations // 10,
    )
    assert cfg.default_hooks.checkpoint.interval == iterations // 10

    # The network.
    assert model.pretrained == 'open-mmlab://resnet50_v1c'
    expected = dict(
        type='ResNetV1c',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
        contract_dilation=True,
    )
    if method == 'caanet':  # of its network
        expected['multi_grid'] = (4, 8, 16)
    assert model.backbone == expected
    head = model.decode_head
    name = f'mmseg_attn.{METHODS[method]["type"]}'
    made = {**METHODS[method], 'type': name}
    assert {key: head[key] for key in made} == made
    assert head.num_classes == it.classes
    auxiliary = model.auxiliary_head
    if method == 'sanet':
        assert list(head.in_channels) == [256, 512, 1024, 2048]
    else:
        assert (head.in_channels, head.in_index) == (2048, 3)
        assert auxiliary.type == 'FCNHead'
        assert auxiliary.num_classes == it.classes
        assert auxiliary.align_corners == head.align_corners
        assert auxiliary.in_channels == (1024, 2048)[auxiliary.in_index - 2]
    # The deeper one is the same but for its depth.
    deeper = read(method, 'r101-d8', data)
    deeper.model.backbone.depth = 50
    assert deeper.model.pretrained == 'open-mmlab://resnet101_v1c'
    deeper.model.pretrained = model.pretrained
    assert deeper.to_dict() == cfg.to_dict()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('data', MODERN)
def test_modern_backbones(data, method):
    """The recipe but for the backbone and the hosts' optimizer for it."""
    r50, swin, convnext = (
        read(method, backbone, data).to_dict()
        for backbone in ('r50-d8', 'swin-tiny', 'convnext-tiny')
    )
    assert swin.pop('swin_tiny')
    assert convnext.pop('convnext_tiny')
    check_swin(swin)
    check_convnext(convnext)
    for cfg in (r50, swin, convnext):
        for key in ('optim_wrapper', 'param_scheduler'):
            del cfg[key]
        for key in ('backbone', 'pretrained'):
            del cfg['model'][key]
    assert convnext == swin
    head = swin['model']['decode_head']
    inputs = ('in_channels', 'in_index', 'input_transform', 'grid')
    taken = {key: head.pop(key) for key in inputs if key in head}
    for key in inputs:
        r50['model']['decode_head'].pop(key, None)
    if method == 'sanet':  # takes all stages, to stride 8
        assert taken == dict(
            in_channels=[96, 192, 384, 768], in_index=[0, 1, 2, 3], grid=1
        )
    else:
        assert taken == dict(
            in_channels=[192, 384, 768],
            in_index=[1, 2, 3],
            input_transform='resize_concat',
        )
        auxiliary = swin['model']['auxiliary_head']
        assert auxiliary['in_index'] == 2
        assert auxiliary.pop('in_channels') == 384
        del auxiliary['in_index']
        for key in ('in_channels', 'in_index'):
            del r50['model']['auxiliary_head'][key]
    assert swin == r50


def check_swin(cfg: dict) -> None:
    theirs = hosts('swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k')
    check_schedule(cfg, theirs)
    assert cfg['optim_wrapper'] == theirs['optim_wrapper']
    arguments = inspect.signature(SwinTransformer).parameters.items()
    defaults = {key: value.default for key, value in arguments}
    ours, theirs = (
        defaults | without(x['model']['backbone'], 'init_cfg', 'norm_cfg')
        for x in (cfg, theirs)
    )
    assert plain(ours) == plain(theirs)


def check_convnext(cfg: dict) -> None:
    theirs = hosts('convnext/convnext-tiny_upernet_8xb2-amp-160k')
    check_schedule(cfg, theirs)
    # Theirs is in half precision, for which ours have --amp.
    wrapper = without(theirs['optim_wrapper'], 'loss_scale')
    assert cfg['optim_wrapper'] == wrapper | dict(type='OptimWrapper')
    ours, theirs = (
        without(x['model']['backbone'], 'init_cfg') for x in (cfg, theirs)
    )
    assert plain(ours) == plain(theirs)


def hosts(stem: str) -> dict:
    # Read without MMPreTrain, whose modules the config imports.
    path = HOST / f'{stem}_ade20k-512x512.py'
    return Config.fromfile(path, import_custom_modules=False).to_dict()


def check_schedule(cfg: dict, theirs: dict) -> None:
    """Warm-up and decay, the latter over 80,000 iterations; the weights."""
    warmup, decay = theirs['param_scheduler']
    assert cfg['param_scheduler'] == [warmup, decay | dict(end=80000)]
    ours, theirs = (x['model']['backbone']['init_cfg'] for x in (cfg, theirs))
    # The families of hosts have the file at two addresses.
    names = [Path(x.pop('checkpoint')).name for x in (ours, theirs)]
    assert names[0] == names[1]
    assert ours == theirs
    assert cfg['model']['pretrained'] is None


def plain(mapping: dict) -> dict:
    """With lists for tuples, which configs mix."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in mapping.items()
    }
