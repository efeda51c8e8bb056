# Copyright (c) mmseg_attn contributors.
"""Every config loads, builds and trains; names, README and metafile agree."""

import copy
import math
import re
from collections import Counter
from functools import cache
from pathlib import Path

import mmseg
import pytest
import torch
import yaml
from all_configs import ALL, ROOT, name, parsed
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_attn.configs import FAMILIES

# Others: test_detection_configs.py and test_stereo_configs.py.
CONFIGS = [p for p in ALL if not re.search('-rcnn_|psmnet', p.name)]
# Dataset in the name of a config -> (its class, number of classes).
DATASETS = {
    'cityscapes': ('CityscapesDataset', 19),
    'ade20k': ('ADE20KDataset', 150),
    'voc12aug': ('PascalVOCDataset', 21),
    'lip': ('LIPDataset', 20),
    'camvid': ('mmseg_attn.CamVidDataset', 11),
    'pascal-context': ('PascalContextDataset', 60),
    'pascal-context-59': ('PascalContextDataset59', 59),
    'coco-stuff10k': ('COCOStuffDataset', 171),
    'coco-stuff164k': ('COCOStuffDataset', 171),
    'gid15': ('mmseg_attn.GID15Dataset', 15),
    'gid5': ('mmseg_attn.GID5Dataset', 5),
    'vaihingen': ('ISPRSDataset', 6),
    'potsdam': ('PotsdamDataset', 6),
}
OF_PAPERS = [path for path in CONFIGS if path.parent.name not in FAMILIES]
HOST = Path(mmseg.__path__[0]) / '.mim' / 'configs'
OF_HOST = [
    path
    for path in OF_PAPERS
    if (HOST / path.parent.name / path.name).exists()
]
METAFILES = sorted(ROOT.glob('configs/*/metafile.yaml'))
# Folder of a method -> its heads.
HEADS = {
    path.parent.name: collection['Metadata'].get('Architecture', [])
    for path in METAFILES
    for collection in yaml.safe_load(path.read_text())['Collections']
}
# What a paper compares with.
PEERS = {
    'ccnet-gcn': 'AttentionHead',
    'ccnet-hv': 'AttentionHead',
    'ccnet-psp': 'PSPHead',
    'ccnet-aspp': 'ASPPHead',
    'ccnet-nl': 'NLHead',
}
SIZE = 65  # of the training pictures; odd, so that no map is even


def config_of(path: Path) -> Config:
    """A config that may be changed."""
    return copy.deepcopy(parsed(path))


def drop_weights(cfg) -> None:
    """Leave the ImageNet weights out: nothing is downloaded in a test."""
    if isinstance(cfg, dict):
        for key, value in cfg.items():
            weights = isinstance(value, dict) and 'checkpoint' in value
            if key == 'pretrained' or weights:
                cfg[key] = None
            else:
                drop_weights(value)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            drop_weights(value)


def make_alike(cfg) -> None:
    """Give what differs among benchmarks and between depths one value.

    Both are in the names, which another test compares with the config.
    """
    if isinstance(cfg, dict):
        if 'num_classes' in cfg and 'class_weight' not in str(cfg):
            cfg['num_classes'] = 7
        if cfg.get('depth') == 101:
            cfg['depth'] = 50
        if 'optimizer' in cfg:
            cfg['optimizer'].update(lr=0.001, weight_decay=0.0)
        for value in cfg.values():
            make_alike(value)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            make_alike(value)


def seg_batch(
    classes: int, height: int, width: int, ignored: bool = True, seed: int = 0
) -> dict:
    generator = torch.Generator().manual_seed(seed)
    samples, images = [], []
    for _ in range(2):
        image = torch.randint(0, 256, (3, height, width), generator=generator)
        label = torch.randint(0, classes, (1, 8, 8), generator=generator)
        label = label.repeat_interleave(-(-height // 8), 1)[:, :height]
        label = label.repeat_interleave(-(-width // 8), 2)[..., :width]
        if ignored:
            label[..., :3] = 255
        sample = SegDataSample(gt_sem_seg=PixelData(data=label))
        sample.set_metainfo(
            {
                'ori_shape': (height, width),
                'img_shape': (height, width),
                'pad_shape': (height, width),
            }
        )
        images.append(image.to(torch.uint8))
        samples.append(sample)
    return {'inputs': images, 'data_samples': samples}


@cache
def train_and_predict(text: str) -> tuple[tuple[float, ...], int, int, int]:
    """One training step and one prediction of a config's model.

    Cached by the text of the config, since most are alike but for data and
    schedule.
    """
    cfg = Config.fromstring(text, '.py')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    watched = model.decode_head.conv_seg.weight
    before = watched.detach().clone()
    # mmseg 1.2.2 cannot have a loss weigh classes where pixels are ignored.
    batch = seg_batch(
        model.num_classes,
        SIZE,
        SIZE,
        ignored='class_weight' not in text or 'ClassWeightPixel' in text,
    )
    # Taller than wide: an exchange of the two sides would show.
    to_test = seg_batch(model.num_classes, 49, 33)
    if 'ClipDataPreProcessor' in text:
        for item in (batch, to_test):
            item['inputs'] = [
                torch.stack([x.flip(-1), x], dim=1) for x in item['inputs']
            ]
    losses = model.train_step(batch, wrapper)
    moved = int((watched != before).sum())
    model.eval()
    with torch.no_grad():
        result = model.test_step(to_test)
    logits = result[0].seg_logits.data
    assert logits.shape == (model.out_channels, 49, 33)
    assert logits.isfinite().all()
    wanted = {
        key: float(value.detach())
        for key, value in losses.items()
        if 'loss' in key
    }
    return tuple(wanted.items()), moved


def method_of(path: Path) -> str:
    """The folder of a method, from the name of a config."""
    return re.split('[-_]', path.stem)[0]


def head_of(path: Path) -> str:
    head = parsed(path).model.decode_head.type
    return head.removeprefix('mmseg_attn.')


@pytest.mark.parametrize(
    'folder', sorted({*map(method_of, CONFIGS)} - {'fcn'})
)
def test_a_metafile_names_the_heads(folder):
    found = {
        head_of(p)
        for p in CONFIGS
        if method_of(p) == folder and p.stem.split('_')[0] not in PEERS
    }
    assert found == set(HEADS[folder]), (
        f'the configs of {folder} have the heads {found}: name these under '
        f'Metadata, Architecture in configs/{folder}/metafile.yaml'
    )


def test_all_configs_of_the_host_are_here():
    folders = {path.parent.name for path in OF_HOST}
    assert folders
    for folder in folders:
        theirs = {path.name for path in HOST.glob(f'{folder}/*.py')}
        assert theirs <= {path.name for path in OF_HOST}


def test_basenames_are_unique():
    # mim finds a config by its basename alone.
    names = Counter(path.name for path in ALL)
    assert [n for n, count in names.items() if count > 1] == []


@pytest.mark.slow
@pytest.mark.parametrize('path', CONFIGS, ids=name)
def test_trains_one_step(path):
    cfg = config_of(path)
    scope = cfg.default_scope
    assert scope == 'mmseg', f'teach this test to train the scope "{scope}"'
    if cfg.model.backbone.type.startswith('mmpretrain.'):
        pytest.importorskip('mmpretrain', reason='ConvNeXt is its')
    drop_weights(cfg.model)
    make_alike([cfg.model, cfg.optim_wrapper])
    # A slice of the picture is enough for the network to run.
    cfg.model.data_preprocessor.pop('size', None)
    cfg.model.data_preprocessor.size_divisor = 1
    if cfg.model.test_cfg.mode == 'slide':
        cfg.model.test_cfg.update(crop_size=(32, 32), stride=(21, 21))
    losses, moved = train_and_predict(
        Config(
            {
                key: cfg[key]
                for key in ('default_scope', 'model', 'optim_wrapper')
            }
        ).pretty_text
    )
    losses = dict(losses)
    assert all(0 <= value < 100 for value in losses.values()), losses
    assert losses['loss'] == pytest.approx(
        sum(value for key, value in losses.items() if key != 'loss'), 1e-4
    )
    assert moved > 0


def check_backbone(model, text: str) -> None:
    """Compare a model with the backbone in the name of its config."""
    if text.endswith('-tiny'):
        kinds = {'swin': 'SwinTransformer', 'convnext': 'mmpretrain.ConvNeXt'}
        assert model.backbone.type == kinds[text.removesuffix('-tiny')]
        weights = model.backbone.init_cfg.checkpoint.replace('_', '-')
        assert f'/{text}-' in weights
        return
    if text.startswith('hr'):
        width = int(text.removeprefix('hr'))
        assert model.backbone.extra.stage4.num_channels[0] == width
        assert f'hrnetv2_w{width}' in model.pretrained
        return
    if text.startswith('eff'):
        arch, stride = re.match(r'eff(b\d)-d(\d+)$', text).groups()
        assert model.backbone.type == 'mmseg_attn.DilatedEfficientNet'
        assert model.backbone.arch == arch
        assert model.backbone.output_stride == int(stride)
        return
    depth, stride = re.match(r'r(\d+)(?:-d(\d+))?$', text).groups()
    assert model.backbone.depth == int(depth)
    assert f'resnet{depth}' in model.pretrained
    # A U-Net has no dilation to tell of.
    strides = model.backbone.get('strides', (1, 2, 2, 2))
    assert math.prod(strides) * 4 == int(stride or 32)


@pytest.mark.parametrize('path', OF_PAPERS, ids=name)
def test_name_says_what_is_inside(path):
    cfg = parsed(path)
    model, backbone, gpus, batch, variant, iters, data, height, width = (
        re.match(
            r'([a-z0-9-]+)_([a-z0-9-]+)_(\d)xb(\d+)([a-z-]*)-(\d+)k_'
            r'([a-z0-9-]+)-(\d+)x(\d+)$',
            path.stem,
        ).groups()
    )
    assert method_of(path) == path.parent.name
    head = head_of(path)
    assert head == PEERS.get(model) or head in HEADS[path.parent.name]
    assert (model == 'ccnet-ce2p') == (head == 'CE2PHead')
    check_backbone(cfg.model, backbone)
    assert gpus == '4'
    assert cfg.train_dataloader.batch_size == int(batch)
    assert cfg.train_cfg.max_iters == 1000 * int(iters)
    assert cfg.param_scheduler[-1].end == 1000 * int(iters)
    crop = (int(height), int(width))
    assert cfg.model.data_preprocessor.size == crop
    steps = str(cfg.train_dataloader)
    assert f"'crop_size': ({height}, {width})" in steps
    assert data in DATASETS, f'name the class and classes of {data} above'
    dataset, classes = DATASETS[data]
    if model.startswith('ccnet3d'):
        dataset = 'mmseg_attn.CamVidClipDataset'
        for loader in ('train', 'val', 'test'):
            frames = cfg[f'{loader}_dataloader'].dataset.frames
            assert frames == int(model[-1])
    assert cfg.val_dataloader.dataset.type == dataset
    aux = cfg.model.get('auxiliary_head') or []
    heads = [cfg.model.decode_head, *(aux if isinstance(aux, list) else [aux])]
    assert {head.num_classes for head in heads} == {classes}
    assert ('ohem' in variant) == ('OHEM' in str(cfg.model))
    assert ('ccl' in variant or model == 'ccnet-ce2p') == (
        'CategoryConsistentLoss' in str(cfg.model)
    )


@pytest.mark.parametrize('base', ['vaihingen', 'potsdam', 'gid15'])
def test_land_cover_is_measured_as_in_papers(base):
    cfg = Config.fromfile(ROOT / f'configs/_base_/datasets/{base}.py')
    expected = {'type': 'mmseg_attn.LandCoverMetric'}
    if base != 'gid15':  # five classes, without clutter
        names = 'impervious_surface building low_vegetation tree car'
        expected['averaged_classes'] = names.split()
    assert cfg.val_evaluator == cfg.test_evaluator == expected


@pytest.mark.parametrize('path', OF_HOST, ids=name)
def test_hosts_recipe_but_for_the_head(path):
    ours = config_of(path).to_dict()
    theirs = Config.fromfile(HOST / path.parent.name / path.name).to_dict()
    head = theirs['model']['decode_head'].pop('type')
    assert ours['model']['decode_head'].pop('type') == f'mmseg_attn.{head}'
    # A variable that the host's config leaves behind; nothing reads it.
    theirs.pop('data_preprocessor')
    ours.pop('data_preprocessor', None)
    assert ours == theirs


def read_rows(readme: Path) -> dict[str, list[str]]:
    """Rows of a README that link a checkpoint: config stem -> cells."""
    rows = {}
    for line in readme.read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
        if line.startswith('|') and '[model](' in line:
            config = re.search(r'\[config\]\(\./(.+?)\.py\)', line)
            rows[config[1]] = cells
    return rows


def test_every_metafile_is_indexed():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert sorted(index['Import']) == [
        *(path.relative_to(ROOT).as_posix() for path in METAFILES),
        'resources/zoo/metafile.yaml',
    ]


@pytest.mark.parametrize('path', METAFILES, ids=lambda p: p.parent.name)
def test_readme_metafile_and_configs_agree(path):
    meta = yaml.safe_load(path.read_text())
    rows = read_rows(path.with_name('README.md'))
    collections = {c['Name']: c for c in meta['Collections']}
    assert all((ROOT / c['README']).exists() for c in collections.values())
    assert [m['Name'] for m in meta['Models']] == list(rows)
    for model in meta['Models']:
        config = ROOT / model['Config']
        assert config.is_file()
        assert config.stem == model['Name'] == model['Name'].lower()
        assert model['In Collection'] in collections
        head = parsed(config).model.decode_head.type.split('.')[-1]
        assert f'class {head}(' in (ROOT / model['Code']).read_text()
        assert re.search(r'-[0-9a-f]{8}\.pth$', model['Weights'])

        row = ' '.join(rows[model['Name']])
        metrics = (
            model['Results'][0]
            if isinstance(model['Results'], list)
            else model['Results']
        )
        assert f'[model]({model["Weights"]})' in row
        for value in metrics['Metrics'].values():
            assert str(value) in rows[model['Name']]
        memory = str(model['Metadata'].get('Memory (GB)', '-'))
        assert memory in rows[model['Name']]
        assert model['Metadata']['Architecture'][0] in rows[model['Name']]
