# Copyright (c) mmseg_attn contributors.
"""From folders of pictures and masks to a trained model."""

import json
import logging
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_attn.__main__ import main
from mmseg_attn.apis import own_training
from mmseg_attn.apis.own_config import own_config
from mmseg_attn.apis.own_data import read_own_data, write_own_data
from mmseg_attn.apis.own_recipe import Recipe
from mmseg_attn.apis.own_training import (
    INSTANCES,
    MASKS,
    class_table,
    plan_training,
)
from mmseg_attn.apis.rehearsal import Cost, OutOfMemory
from mmseg_attn.configs import OWN_BACKBONES, OWN_METHODS
from mmseg_attn.datasets.mask_classes import read_class_names
from mmseg_attn.engine import ValidationSheetHook
from mmseg_attn.errors import UserError

SIDES = (90, 70)


def write(folder, masks, suffix='.jpg'):
    """Pictures in which a class can be seen, and their masks."""
    for name, mask in masks.items():
        picture = np.full((*mask.shape[:2], 3), 60, np.uint8)
        seen = mask if mask.ndim == 2 else mask[..., 0]
        picture[seen > 0] = 200
        for kind in ('images', 'masks'):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f'images/{name}{suffix}')
        Image.fromarray(mask).save(folder / f'masks/{name}.png')


def halves(low, high):
    mask = np.full(SIDES, low, np.uint8)
    mask[:, 30:] = high
    return mask


@pytest.fixture
def folder(tmp_path):
    masks = {f'{split}/p{i}': halves(0, 1) for split in ('train', 'val')
             for i in range(3)}  # fmt: skip
    masks['train/p0'][:10] = 255
    write(tmp_path, masks)
    return tmp_path


def read(folder, **options):
    return read_own_data(folder / 'images', folder / 'masks', **options)


def test_what_is_read_is_what_is_there(folder):
    data = read(folder)
    assert data.classes.names == ['background', 'foreground']
    assert data.sizes == {SIDES: 6}
    assert data.pixels['val'].tolist() == [3 * 90 * 30, 3 * 90 * 40]
    assert data.pixels['train'].tolist() == [
        (2 * 90 + 80) * 30,
        (2 * 90 + 80) * 40,
    ]
    assert data.pictures['train'].tolist() == [3, 3]
    assert data.warnings() == [] and MASKS.fitting_crop(data) == 64
    assert '| foreground | 57.1 % | 3 |' in class_table(data)


def test_classes_of_a_file_beside_the_masks(folder):
    about = {'classes': ['ground', 'horse', 'rider']}
    (folder / 'dataset.json').write_text(json.dumps(about))
    data = read(folder)
    assert data.classes.names == about['classes']
    assert data.warnings() == ['class rider never occurs']
    (folder / 'dataset.json').write_text('{"classes": ["ground"]}')
    with pytest.raises(UserError, match='hold 1, .* 1 classes of .*json: gro'):
        read(folder)
    # An option goes before the file.
    data = read(folder, classes=read_class_names('a, b'))
    assert data.classes.names == ['a', 'b']


def test_black_and_white_masks_with_names(tmp_path):
    write(tmp_path, {f'p{i}': halves(0, 255) for i in range(5)})
    data = read(tmp_path, classes=read_class_names('ground,horse'))
    assert data.classes.values == [0, 255]
    assert [len(pairs) for pairs in data.splits.values()] == [4, 1]


def test_colours_need_to_be_told(tmp_path):
    colours = np.array([[200, 0, 0], [0, 0, 200]], np.uint8)
    write(tmp_path, {f'p{i}': colours[halves(0, 1)] for i in range(3)})
    names = read_class_names('sea,land')
    with pytest.raises(UserError, match='which colour is which class'):
        read(tmp_path, classes=names)
    # In another order than that of the colours' numbers.
    names['palette'] = colours.tolist()
    data = read(tmp_path, classes=names)
    write_own_data(data, tmp_path / 'out')
    mask = np.array(Image.open(next(tmp_path.glob('out/masks/*.png'))))
    assert np.array_equal(mask, halves(0, 1))
    names['palette'][0] = [1, 2, 3]
    with pytest.raises(UserError, match=r'the colour \[200, 0, 0\], which is'):
        read(tmp_path, classes=names)


def test_one_name_is_no_list():
    with pytest.raises(UserError, match="--classes got 'horse', expected two"):
        read_class_names('horse')


def test_written_data_load(folder):
    data = read(folder)
    out = folder / 'out'
    write_own_data(data, out)
    cfg = own_config(data, out, Recipe(crop=64))
    init_default_scope('mmseg')
    dataset = cfg.train_dataloader.dataset
    dataset.pipeline = dataset.pipeline[:2]
    dataset = DATASETS.build(dataset)
    assert len(dataset) == 3
    sample = dataset[0]
    assert sample['img_path'].endswith('images/train/p0.jpg')
    expected = halves(0, 1)
    expected[:10] = 255
    assert np.array_equal(sample['gt_seg_map'], expected)


@pytest.mark.parametrize('backbone', OWN_BACKBONES)
@pytest.mark.parametrize('method', OWN_METHODS)
def test_configs_of_all_methods_and_backbones(folder, method, backbone):
    data = read(folder)
    recipe = Recipe(method=method, backbone=backbone, scratch=True, iters=40)
    cfg = own_config(data, folder, recipe)
    assert cfg.model.get('pretrained') is None
    assert 'init_cfg' not in cfg.model.backbone
    assert cfg.model.decode_head.num_classes == 2
    assert cfg.train_cfg == dict(
        type='IterBasedTrainLoop', max_iters=40, val_interval=4
    )
    known = own_config(data, folder, Recipe(method, backbone))
    assert known.model.pretrained or known.model.backbone.init_cfg
    assert known.optim_wrapper.optimizer.lr < cfg.optim_wrapper.optimizer.lr
    if backbone == 'r18':  # its widths are changed here
        init_default_scope('mmseg')
        model = MODELS.build(cfg.model)
        assert model.backbone.depth == 18


def test_a_published_model_keeps_its_form(folder):
    name = 'isanet_r101-d8_4xb2-80k_cityscapes-769x769'
    recipe = Recipe(published=name, weights='w.pth', stride=16, crop=64)
    cfg = own_config(read(folder), folder, recipe)
    assert cfg.load_from == 'w.pth' and cfg.model.pretrained is None
    model = cfg.model
    assert model.backbone.depth == 101 and model.decode_head.num_classes == 2
    assert model.auxiliary_head.num_classes == 2
    assert model.backbone.strides == (1, 2, 1, 1)
    assert model.test_cfg == dict(mode='whole')


def test_from_names_the_config_and_not_the_weights(
    folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    name = 'isanet_r50-d8_4xb4-80k_ade20k-512x512'
    row = SimpleNamespace(name=name)
    monkeypatch.setattr('mmseg_attn.apis.zoo.find_row', lambda _: row)
    found = (folder / 'w.pth', 'as published')
    monkeypatch.setattr('mmseg_attn.apis.zoo.download', lambda *_: found)
    cost = Cost(step=1, picture=1, start=1, memory=1)
    monkeypatch.setattr(own_training, 'rehearse', lambda _: cost)
    call = ['train', '--images', 'images', '--masks', 'masks', '--dry-run']
    main([*call, '--from', name])
    said = capsys.readouterr().out
    assert f'{name}, from {folder / "w.pth"}' in said
    assert said.endswith('mmseg_attn train work_dirs/mine/config.py\n')
    cfg = Config.fromfile('work_dirs/mine/config.py')
    assert cfg.load_from == str(folder / 'w.pth')


def test_patience_counts_small_gains(folder):
    """An mAP goes from 0 to 1: 0.01 is a gain, the same again is none."""
    cfg = own_config(read(folder), folder, Recipe(scratch=True, patience=2))
    (hook,) = (h for h in cfg.custom_hooks if 'patience' in h)
    hook = HOOKS.build(hook)
    loop = SimpleNamespace(stop_training=False)
    runner = SimpleNamespace(logger=logging.getLogger(), train_loop=loop)
    for value in (0.5, 0.51, 0.52, 0.52):
        hook.after_val_epoch(runner, {'mIoU': value})
        assert not loop.stop_training
    hook.after_val_epoch(runner, {'mIoU': 0.52})
    assert loop.stop_training


def test_batch_that_fits(folder, monkeypatch):
    """Halved where the first steps die of it, and where they say too much."""
    batches = []

    def rehearse(cfg):
        batches.append(cfg.train_dataloader.batch_size)
        if len(batches) == 1:
            raise OutOfMemory('too much')
        return Cost(1, 1, 1, 1e18 if len(batches) == 2 else 1.0)

    monkeypatch.setattr(own_training, 'rehearse', rehearse)
    recipe = Recipe(scratch=True, crop=64, batch=16, amp='bfloat16')
    plan = plan_training(read(folder), folder / 'out', recipe)
    assert batches == [16, 8, 4] and plan.recipe.batch == 4


@pytest.mark.parametrize(
    'flags, amp',
    [
        ('flags : avx512f avx512_bf16', 'bfloat16'),
        ('Features : fp asimd bf16 i8mm', 'bfloat16'),
        ('flags : avx512f avx512bw', None),
    ],
)
def test_products_are_as_the_processor_has_them(flags, amp, monkeypatch):
    monkeypatch.setattr(own_training.Path, 'read_text', lambda _: flags)
    assert MASKS.of_device('cpu') == dict(stride=16, amp=amp)
    assert INSTANCES.of_device('cpu') == dict(stride=16, amp=None)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert MASKS.of_device() == dict(stride=16, amp=amp)


@pytest.mark.parametrize('picture, validations', [(0.1, 10), (9, 3)])
def test_plan_of_minutes(folder, monkeypatch, picture, validations):
    """Ten validations of 3 pictures, or as many as 15 % of the time allow."""
    cost = Cost(1.0, picture, start=10, memory=1e6, note='half fits')
    monkeypatch.setattr(own_training, 'rehearse', lambda _: cost)
    recipe = Recipe(scratch=True, crop=64, amp='bfloat16')
    plan = plan_training(read(folder), folder / 'out', recipe, minutes=10)
    cfg = Config.fromfile(plan.config)
    assert cfg.optim_wrapper.type == 'mmseg_attn.BFloat16OptimWrapper'
    steps = int(600 - 10 - validations * 3 * picture)
    assert cfg.train_cfg.max_iters == steps
    assert -(-steps // cfg.train_cfg.val_interval) == validations
    assert abs(plan.seconds() - 600) <= 1
    text = '\n'.join(plan.lines())
    assert 'half fits' in text and 'products in bfloat16' in text
    assert f'{steps} steps' in text and f'{validations} validations' in text


def test_plan_of_few_steps(folder, monkeypatch):
    """Six steps have six validations, and not the ten of longer ones."""
    monkeypatch.setattr(own_training, 'rehearse', lambda _: Cost(1, 1, 1, 1))
    plan = plan_training(read(folder), folder / 'out', Recipe(iters=6))
    assert '6 steps (16 times each picture), 6 validations' in plan.lines()


def test_sheets_sort_by_their_steps(folder):
    """The last by its name is the last one drawn."""
    loader = MagicMock()
    loader.__len__.return_value = 1
    loader.dataset.metainfo = dict(classes=('a', 'b'), palette=[[0] * 3] * 2)
    mask = SimpleNamespace(data=torch.zeros(1, *SIDES))
    sample = SimpleNamespace(
        img_path=str(folder / 'images/val/p0.jpg'),
        gt_sem_seg=mask,
        pred_sem_seg=mask,
    )
    hook = ValidationSheetHook()
    for step in (85, 900, 1000):
        runner = Mock(val_dataloader=loader, work_dir=folder, iter=step)
        hook.before_val_epoch(runner)
        hook.after_val_iter(runner, 0, outputs=[sample])
        hook.after_val_epoch(runner)
    names = sorted(path.stem for path in folder.glob('sheets/*.png'))
    assert [int(name.removeprefix('iter_')) for name in names] == [
        *(85, 900, 1000)
    ]


@pytest.mark.parametrize(
    'options, message',
    [
        ((), 'expected a config, or --images'),
        (('x.py', '--images', 'a', '--masks', 'b'), 'expected a config, or'),
        (('x.py', '--method', 'ea'), '--method is for --images, your own'),
        (('--images', 'a', '--masks', 'b', '--amp'), '--amp is for a config'),
        (('--images', 'a'), '--images needs either --masks'),
        (('--images', 'a', '--masks', 'b'), 'pictures does not exist: a'),
        (
            ('--images', 'images', '--masks', 'masks', '--out', 'masks/mine'),
            'masks/mine lies in masks, where nothing shall be written',
        ),
        (('--weights', 'no.pth'), 'got --weights no.pth, where there is no'),
        (('--weights', 'images'), 'images is a folder without best_*.pth'),
        (('--crop', '8'), 'got crop 8, expected a number from 32'),
        (('--iters', '1'), 'got iters 1, expected a number from 2'),
        (('--epochs', '-1'), 'got epochs -1'),
        (('--batch-size', '-1'), 'got batch -1'),
        (('--patience', '0'), 'got patience 0'),
    ],
)
def test_mistakes(folder, options, message, monkeypatch):
    monkeypatch.chdir(folder)
    if message.startswith('got ') or '--weights' in options:
        options = ('--images', 'images', '--masks', 'masks', *options)
    with pytest.raises(SystemExit) as end:
        main(['train', *options])
    assert message in end.value.code
    assert not (folder / 'work_dirs').exists()


@pytest.mark.slow
def test_trains_shows_and_goes_on(folder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    call = ['train', '--images', 'images', '--masks', 'masks', '--scratch']
    call += ['--backbone', 'r18', '--iters', '4', '--batch-size', '2']
    call += ['--balance', '--patience', '3', '--out', 'mine']
    main(call)
    said = capfd.readouterr().out
    assert '3 pictures to train on, 3 to validate with' in said
    end = 'predict mine/config.py mine/run images'
    assert f'Next: python -m mmseg_attn {end}\n' in said
    with pytest.raises(SystemExit, match='config.py exists'):
        main(call)
    assert len(list((tmp_path / 'mine/run').glob('best_mIoU_*.pth'))) == 1
    sheets = sorted((tmp_path / 'mine/run/sheets').iterdir())
    assert len(sheets) == 4
    assert cv2.imread(str(sheets[0])).shape[0] == 3 * 166
    assert Config.fromfile(tmp_path / 'mine/config.py').randomness.seed == 0
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SystemExit, match='empty is a folder without best_'):
        main(['predict', 'mine/config.py', 'empty', 'images/val'])
    # The config that was written is an ordinary one.
    main(['train', 'mine/config.py', '--resume'])
    said = capfd.readouterr().out
    (best,) = (tmp_path / 'mine/run').glob('best_*.pth')
    best = best.relative_to(tmp_path)
    assert f'mmseg_attn test mine/config.py {best}\n' in said
    main([*end.split(), '-o', 'out'])
    assert len(list((tmp_path / 'out').rglob('*.png'))) >= 3
