# Copyright (c) mmseg_attn contributors.
"""The base dataset configs on small folders in each public layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from PIL import Image

from mmseg_attn.engine.runner import build_runner

ROOT = Path(__file__).parents[2]
# Base config -> (training crop, values a raw mask holds, labels after loading)
BASES = {
    'cityscapes': ((512, 1024), [*range(19), 255], [*range(19), 255]),
    'cityscapes_769x769': ((769, 769), [*range(19), 255], [*range(19), 255]),
    'ade20k': ((512, 512), [*range(151)], [*range(150), 255]),
    'pascal_voc12_aug': ((512, 512), [*range(21), 255], [*range(21), 255]),
    'lip': ((473, 473), [*range(20)], [*range(20)]),
    'camvid': ((720, 720), [*range(11), 255], [*range(11), 255]),
    'pascal_context': ((480, 480), [*range(60)], [*range(60)]),
    'pascal_context_59': ((480, 480), [*range(60)], [*range(59), 255]),
    'coco-stuff10k': ((512, 512), [*range(172)], [*range(171), 255]),
    'coco-stuff164k': (
        (512, 512),
        [*range(171), 255],
        [*range(171), 255],
    ),
    'gid15': ((256, 256), [*range(15), 255], [*range(15), 255]),
    'gid5': ((256, 256), [*range(5), 255], [*range(5), 255]),
    'vaihingen': ((512, 512), [*range(7)], [*range(6), 255]),
    'potsdam': ((512, 512), [*range(7)], [*range(6), 255]),
}
# The same data at other sizes.
BASES['cityscapes_isanet'] = BASES['cityscapes']
for name, size in (
    ('ade20k', 520),
    ('pascal_context_59', 513),
    ('pascal_context_59', 520),
    ('pascal_voc12_aug', 513),
    ('coco-stuff10k', 520),
):
    BASES[f'{name}_{size}x{size}'] = ((size, size), *BASES[name][1:])
# Base config -> folders of its pictures and masks, and a mask's ending.
FOLDERS = {
    'coco-stuff10k': ('train2014', 'test2014', '_labelTrainIds.png'),
    'coco-stuff164k': ('train2017', 'val2017', '_labelTrainIds.png'),
    'gid15': ('train', 'val', 'test', '.png'),
    'gid5': ('train', 'val', 'test', '.png'),
    'vaihingen': ('train', 'val', '.png'),
    'potsdam': ('train', 'val', '.png'),
}


def pictures(root, rng, values, image, mask, names, size=(48, 64)):
    """Write pictures and masks; a mask holds each value in its blocks."""
    for name in names:
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        blocks = rng.permutation(np.resize(values, 192)).reshape(12, 16)
        label = blocks.repeat(4, 0).repeat(4, 1).astype(np.uint8)
        for pattern, content in ((image, pixels), (mask, label)):
            path = root / pattern.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)


def make(root: Path, base: str) -> Path:
    """Write a small dataset in the layout of a base config."""
    rng = np.random.default_rng(0)
    values = BASES[base][1]

    def write(image, mask, names):
        pictures(root, rng, values, image, mask, names)

    if base.startswith('cityscapes'):
        for split in ('train', 'val'):
            write(
                f'leftImg8bit/{split}/town/{{}}_leftImg8bit.png',
                f'gtFine/{split}/town/{{}}_gtFine_labelTrainIds.png',
                ['a', 'b'],
            )
    elif base.startswith('ade20k'):
        for split in ('training', 'validation'):
            write(
                f'images/{split}/{{}}.jpg',
                f'annotations/{split}/{{}}.png',
                ['a', 'b'],
            )
    elif base.startswith('pascal_context'):
        lists = root / 'ImageSets' / 'SegmentationContext'
        lists.mkdir(parents=True)
        for split in ('train', 'val'):
            names = [f'{split}0', f'{split}1']
            (lists / f'{split}.txt').write_text('\n'.join(names))
            masks = 'SegmentationClassContext/{}.png'
            write('JPEGImages/{}.jpg', masks, names)
    elif base.startswith('pascal_voc12_aug'):
        lists = root / 'ImageSets' / 'Segmentation'
        lists.mkdir(parents=True)
        for split, folder in (
            ('train', 'SegmentationClass'),
            ('aug', 'SegmentationClassAug'),
            ('val', 'SegmentationClass'),
        ):
            names = [f'{split}0', f'{split}1']
            (lists / f'{split}.txt').write_text('\n'.join(names))
            write('JPEGImages/{}.jpg', f'{folder}/{{}}.png', names)
    elif base == 'lip':
        for split in ('train', 'val'):
            write(
                f'{split}_images/{{}}.jpg',
                f'{split}_segmentations/{{}}.png',
                ['a', 'b'],
            )
    elif base == 'camvid':
        for split in ('train', 'val', 'test'):
            write(
                f'images/{split}/{{}}.png',
                f'annotations/{split}/{{}}.png',
                ['a', 'b'],
            )
    else:
        *splits, ending = FOLDERS[base.removesuffix('_520x520')]
        images, masks = 'images', 'annotations'
        if base in ('vaihingen', 'potsdam'):
            images, masks = 'img_dir', 'ann_dir'
        suffix = '.jpg' if base.startswith('coco') else '.png'
        for split in splits:
            write(
                f'{images}/{split}/{{}}{suffix}',
                f'{masks}/{split}/{{}}{ending}',
                ['a', 'b'],
            )
    return root


def move(dataset, root: Path) -> None:
    for part in dataset.get('datasets', [dataset]):
        part.data_root = str(root)


@pytest.mark.parametrize('base', BASES)
def test_pipelines_read_the_layout(base, tmp_path):
    init_default_scope('mmseg')
    cfg = Config.fromfile(ROOT / f'configs/_base_/datasets/{base}.py')
    crop, _, labels = BASES[base]
    root = make(tmp_path / 'data', base)
    np.random.seed(0)

    move(cfg.train_dataloader.dataset, root)
    train = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(train) == (4 if 'voc12_aug' in base else 2)
    seen = set()
    for item in train:
        image, label = item['inputs'], item['data_samples'].gt_sem_seg.data
        assert image.dtype == torch.uint8
        assert image.shape[1:] == label.shape[1:]
        assert all(s <= c for s, c in zip(image.shape[1:], crop, strict=True))
        seen |= set(label.unique().tolist())
    assert seen <= set(labels)
    assert len(seen) > min(10, len(labels) - 3)

    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        move(loader.dataset, root)
        dataset = DATASETS.build(loader.dataset)
        assert len(dataset) == 2
        label = dataset[0]['data_samples'].gt_sem_seg.data
        # Compared at the size of the mask itself, whatever the picture's.
        assert label.shape == (1, 48, 64)
        assert set(label.unique().tolist()) == set(labels)

    if 'tta_pipeline' not in cfg:  # tools/test.py then makes one
        assert base in ('gid15', 'gid5', 'pascal_context')
        return
    shape = dataset[0]['inputs'].shape
    loader.dataset.pipeline = cfg.tta_pipeline
    item = DATASETS.build(loader.dataset)[0]
    views = item['data_samples']
    if base.endswith(('513x513', '520x520')):  # one view as in the test
        assert shape in [view.shape for view in item['inputs']]
    assert [view.flip for view in views].count(True) == len(views) // 2


def shrink(cfg: Config, root: Path, work_dir: Path) -> Config:
    """Make a config's run small; what it does to data and losses stays."""
    cfg.work_dir = str(work_dir)
    cfg.model.pretrained = None
    cfg.model.backbone.update(base_channels=4, stem_channels=8)
    widths = (16, 32, 64, 128)
    head = cfg.model.decode_head
    if head.type == 'mmseg_attn.CE2PHead':
        head.update(
            in_channels=widths,
            channels=16,
            decoder_channels=16,
            skip_channels=4,
        )
    else:
        head.update(in_channels=widths[3], channels=16)
        cfg.model.auxiliary_head.update(in_channels=widths[2], channels=8)
    for loader in (
        cfg.train_dataloader,
        cfg.val_dataloader,
        cfg.test_dataloader,
    ):
        move(loader.dataset, root)
        loader.update(num_workers=0, persistent_workers=False, batch_size=1)
    cfg.train_dataloader.batch_size = 2
    cfg.model.data_preprocessor.size = (64, 64)
    for step in cfg.train_dataloader.dataset.pipeline:
        if step.type == 'RandomCrop':
            step.crop_size = (64, 64)
        if step.type == 'RandomResize':
            step.scale = (64, 48)
    cfg.train_cfg.update(max_iters=3, val_interval=3)
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.interval = 3
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    cfg.randomness = {'seed': 0}
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize(
    ('config', 'base', 'losses'),
    [
        (
            'ccnet-ce2p_r50-d16_4xb10-115k_lip-473x473',
            'lip',
            ['loss_ce', 'loss_ce_seg1', 'loss_edge', 'loss_ccl'],
        ),
        ('ccnet_r50-d8_4xb2-20k_camvid-720x720', 'camvid', ['loss_ce']),
    ],
)
def test_config_trains_validates_and_tests(config, base, losses, tmp_path):
    root = make(tmp_path / 'data', base)
    path = ROOT / f'configs/ccnet/{config}.py'
    cfg = shrink(Config.fromfile(path), root, tmp_path / 'work')
    runner = build_runner(cfg)
    runner.train()
    for loss in losses:
        history, _ = runner.message_hub.get_scalar(f'train/decode.{loss}').data
        assert len(history) == 3
        assert np.isfinite(history).all()
    checkpoint = tmp_path / 'work' / 'iter_3.pth'
    assert checkpoint.is_file()

    # The trained model, tested as tools/test.py --tta does it.
    cfg.load_from = str(checkpoint)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    if base == 'camvid':  # six scales of 960x720 take their time
        flips = cfg.tta_pipeline[-1].transforms
        flips[0] = flips[0][:1]
    if base == 'lip':
        assert cfg.tta_model.type == 'mmseg_attn.MirrorTTAModel'
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model
    metrics = build_runner(cfg, train=False).test()
    assert 0 <= metrics['mIoU'] <= 100


def test_a_model_of_other_classes_is_a_start(tmp_path):
    """Cityscapes weights for CamVid: all but the classifiers is taken."""
    root = make(tmp_path / 'data', 'camvid')
    path = ROOT / 'configs/ccnet/ccnet_r50-d8_4xb2-20k_camvid-720x720.py'
    cfg = shrink(Config.fromfile(path), root, tmp_path / 'work')
    init_default_scope('mmseg')
    other = cfg.copy()
    other.model.decode_head.num_classes = 19
    other.model.auxiliary_head.num_classes = 19
    donor = MODELS.build(other.model)
    weights = donor.state_dict()
    torch.save({'state_dict': weights, 'meta': {}}, tmp_path / 'city.pth')

    cfg = shrink(Config.fromfile(path), root, tmp_path / 'work')
    cfg.load_from = str(tmp_path / 'city.pth')
    runner = build_runner(cfg)
    runner.load_or_resume()
    for key, value in runner.model.state_dict().items():
        taken = (
            torch.equal(value, weights[key])
            if (value.shape == weights[key].shape)
            else False
        )
        assert taken != ('conv_seg' in key), key
