# Copyright (c) mmseg_attn contributors.
"""What build_runner puts into a config, and the mistakes it finds."""

from collections import OrderedDict

import cv2
import numpy as np
import pytest
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from tiff import write_tiff
from tiny_training import tiny_config, write_dataset

from mmseg_attn.apis.complexity import segmentor_flops
from mmseg_attn.datasets.check_annotations import CheckAnnotations
from mmseg_attn.engine.check_setup import check_channels, picture_channels
from mmseg_attn.engine.data_checks import check_output_folder
from mmseg_attn.engine.resume import check_unused
from mmseg_attn.engine.runner import build_runner
from mmseg_attn.errors import UserError


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data', pictures=4)


@pytest.fixture
def cfg(data, tmp_path):
    return tiny_config(
        data,
        tmp_path / 'run',
        **{'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2},
    )


def refusal(cfg):
    """Train, and return what is said against it."""
    with pytest.raises(UserError) as error:
        build_runner(cfg).train()
    # From a worker process it comes with a traceback before it.
    return str(error.value).strip().splitlines()[-1]


# Labels


@pytest.mark.parametrize('workers', [0, 1])
def test_label_out_of_range(cfg, data, workers):
    path = data / 'masks' / 'train' / '2.png'
    mask = cv2.imread(str(path), -1)
    mask[:2, :5] = 3
    mask[0, 0] = 200
    cv2.imwrite(str(path), mask)
    cfg.train_dataloader.num_workers = workers
    text = refusal(cfg)
    assert f'{path} holds label 3 (9 pixels), 200 (1 pixels)' in text
    assert 'expected 0 to 2, or 255 to ignore' in text


def test_label_out_of_range_in_validation(cfg, data):
    path = data / 'masks' / 'val' / '0.png'
    cv2.imwrite(str(path), np.full((48, 48), 7, np.uint8))
    assert f'{path} holds label 7 (2304 pixels)' in refusal(cfg)


def test_wrapped_datasets_are_checked(cfg, data, monkeypatch):
    # As in a new process, where no config was run before.
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    path = data / 'masks' / 'train' / '0.png'
    cv2.imwrite(str(path), np.full((48, 48), 7, np.uint8))
    plain = cfg.train_dataloader.dataset
    repeated = dict(type='RepeatDataset', times=2, dataset=plain)
    cfg.train_dataloader.dataset = ConfigDict(
        type='ConcatDataset', datasets=[repeated, plain]
    )
    cfg.train_cfg.max_iters = 6  # all twelve samples
    assert f'{path} holds label 7' in refusal(cfg)


def test_mask_of_another_size(cfg, data):
    path = data / 'masks' / 'train' / '1.png'
    cv2.imwrite(str(path), np.zeros((48, 40), np.uint8))
    text = refusal(cfg)
    picture = data / 'images' / 'train' / '1.png'
    assert f'{path} is 40 x 48 pixels, but its picture {picture} is' in text
    assert '48 x 48' in text


def test_mask_in_colour(cfg, data):
    path = data / 'masks' / 'train' / '1.png'
    cv2.imwrite(str(path), np.zeros((48, 48, 3), np.uint8))
    assert f'{path} is a colour picture (48, 48, 3)' in refusal(cfg)


def test_mask_of_16_bits(cfg, data):
    """Its 257 would be read as class 1."""
    path = data / 'masks' / 'train' / '1.png'
    cv2.imwrite(str(path), np.full((48, 48), 257, np.uint16))
    assert f'{path} has 16 bits per pixel' in refusal(cfg)


def test_black_and_white_masks(tmp_path, caplog):
    """Pixels of 255 would be ignored in training and in the metric."""
    data = write_dataset(tmp_path / 'data', pictures=4)
    cfg = tiny_config(data, tmp_path / 'run')
    for path in data.glob('masks/train/*'):
        mask = cv2.imread(str(path), -1)
        cv2.imwrite(str(path), np.where(mask, 255, 0).astype(np.uint8))
    text = refusal(cfg)
    assert 'the 4 masks hold 0 and 255 alone' in text
    assert str(data) in text


def test_what_is_passed_over_or_missing_is_said(cfg, data, monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmengine.logging.MMLogger.warning',
        lambda self, text, *args: lines.append(text),
    )
    (data / 'images/train/1.png').rename(data / 'images/train/1.PNG')
    for path in data.glob('masks/val/*'):
        mask = cv2.imread(str(path), -1)
        cv2.imwrite(str(path), mask * (mask != 2))
    build_runner(cfg).train()
    text = ' '.join(lines)
    assert f'1 pictures in {data / "images/train"}' in text.replace('//', '/')
    assert 'end in .PNG and are not used, such as 1.PNG' in text
    assert '1 masks in' in text
    assert 'have no picture and are not used, such as 1.png' in text
    assert 'no label map has' in text


def test_mask_that_pillow_does_not_know(cfg, data):
    path = data / 'masks' / 'train' / '1.png'
    write_tiff(path, np.zeros((48, 48), np.float64))
    assert f'the mask {path} has 1 bands of 64-bit float' in refusal(cfg)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(50))
    assert f'{path} cannot be read' in refusal(cfg)


def test_label_of_the_file_is_named_under_reduce_zero_label(tmp_path):
    check = CheckAnnotations(num_classes=3)
    sample = dict(
        gt_seg_map=np.array([[0, 2, 255]], np.uint8),
        seg_map_path='a.png',
        reduce_zero_label=True,
    )
    assert check(sample) is sample
    sample = dict(
        sample,
        gt_seg_map=np.array([[0, 3, 255]], np.uint8),
        seg_map_path='b.png',
    )
    # 4 in the file became 3.
    with pytest.raises(UserError, match=r'b\.png holds label 4 .*1 to 3, or'):
        check(sample)


def test_ignore_index_is_the_heads(cfg, data):
    path = data / 'masks' / 'train' / '1.png'
    cv2.imwrite(str(path), np.full((48, 48), 9, np.uint8))
    assert 'holds label 9' in refusal(cfg)
    cfg.model.decode_head.ignore_index = 9
    assert 'Set val_evaluator.ignore_index=9' in refusal(cfg)
    cfg.val_evaluator.ignore_index = 9
    assert 'Set model.data_preprocessor.seg_pad_val=9' in refusal(cfg)
    cfg.model.data_preprocessor.seg_pad_val = 9
    build_runner(cfg).train()


# Folders and numbers


def test_missing_folder(cfg, data):
    cfg.train_dataloader.dataset.data_root = str(data / 'nowhere')
    text = refusal(cfg)
    assert 'data_prefix.img_path of train_dataloader does not exist' in text
    assert str(data / 'nowhere' / 'images' / 'train') in text
    assert '--cfg-options train_dataloader.dataset.data_root=' in text


def test_missing_list(cfg):
    cfg.val_dataloader.dataset.ann_file = 'val.txt'
    assert 'ann_file of val_dataloader does not exist' in refusal(cfg)


@pytest.mark.parametrize(
    'content, kind',
    [
        ('0\n1\n'.encode('utf-16'), 'UTF-16 text'),
        ('0\n1\n'.encode('utf-16-be'), 'no text, or UTF-16 text'),
        ('0\n1\n'.encode('utf-8-sig'), 'UTF-8 text with a byte order mark'),
        ('Straße\n'.encode('latin-1'), 'text in another encoding'),
    ],
)
def test_list_in_another_encoding(cfg, data, content, kind):
    (data / 'val.txt').write_bytes(content)
    cfg.val_dataloader.dataset.ann_file = 'val.txt'
    expected = f'{data}/val.txt of val_dataloader is {kind}: expected a list'
    assert refusal(cfg).startswith(expected)


def test_class_names_in_another_encoding(cfg, data):
    (data / 'names.txt').write_bytes('ground\nbox\nbar\n'.encode('utf-16'))
    cfg.val_dataloader.dataset.metainfo.classes = str(data / 'names.txt')
    assert 'names.txt of metainfo of val_dataloader' in refusal(cfg)


def test_validation_batches_of_several_sizes(cfg, data):
    """Said before the first iteration; of one size they are no problem."""
    for kind in ('images', 'masks'):
        path = data / kind / 'val' / '3.png'
        cv2.imwrite(str(path), cv2.imread(str(path), -1)[:40])
    cfg.val_dataloader.batch_size = 4
    text = refusal(cfg)
    assert text.startswith('val_dataloader.batch_size is 4, but behind')
    images = data / 'images' / 'val'
    assert f'{images}/0.png (48 x 48) and {images}/3.png (48 x 40)' in text
    assert text.endswith('Set val_dataloader.batch_size=1')
    assert not list((data.parent / 'run').glob('*/vis_data/scalars.json'))
    # A resize to one size makes them one.
    cfg.val_dataloader.dataset.pipeline[1].keep_ratio = False
    build_runner(cfg).train()


def test_masks_are_loaded_that_no_folder_has(cfg):
    del cfg.val_dataloader.dataset.data_prefix['seg_map_path']
    expected = 'data_prefix of val_dataloader names no seg_map_path'
    assert refusal(cfg).startswith(expected)


@pytest.mark.parametrize('loader', ['train', 'val'])
def test_empty_folder(cfg, data, loader):
    cfg[f'{loader}_dataloader'].dataset.img_suffix = '.jpeg'
    text = refusal(cfg)
    assert f"no sample found by BaseSegDataset(data_root='{data}'" in text
    assert f"'images/{loader}'" in text
    assert "img_suffix='.jpeg'" in text
    # Without serialisation an infinite sampler would never return.
    cfg[f'{loader}_dataloader'].dataset.serialize_data = False
    assert 'no sample found' in refusal(cfg)


def test_fewer_outputs_than_classes(cfg):
    cfg.model.decode_head.num_classes = 2
    text = refusal(cfg)
    assert 'decode_head.num_classes is 2, but BaseSegDataset has 3' in text
    assert 'ground, box, bar' in text


def test_channels_of_the_head(cfg):
    cfg.model.decode_head.in_channels = 2048
    text = refusal(cfg)
    assert 'decode_head.in_channels is 2048, but at in_index 3' in text
    assert '[64] channels' in text or '64 channels' in text


def test_index_of_the_head(cfg):
    cfg.model.decode_head.in_index = 4
    assert 'in_index is 4, but the backbone' in refusal(cfg)


def test_channels_of_the_picture(cfg):
    cfg.model.backbone.in_channels = 4
    assert 'does not fit pictures of 3 channels' in refusal(cfg)


def test_channels_without_a_mean_are_the_backbones(cfg):
    """Several bands are normalised in the pipeline."""
    cfg.model.data_preprocessor.update(mean=None, std=None)
    cfg.model.backbone.in_channels = 5
    model = MODELS.build(cfg.model)
    check_channels(model)
    assert picture_channels(model) == 5
    flops = segmentor_flops(model, 32, 32)
    assert flops['backbone'] > 0


@pytest.mark.parametrize('head', ['decode_head', 'auxiliary_head'])
def test_weights_of_another_number_of_classes(cfg, head):
    loss = dict(type='CrossEntropyLoss', class_weight=[1.0] * 7)
    if head == 'auxiliary_head':
        cfg.model.auxiliary_head = dict(
            type='FCNHead',
            in_channels=cfg.model.decode_head.in_channels,
            in_index=cfg.model.decode_head.in_index,
            channels=4,
            num_convs=1,
            concat_input=False,
            num_classes=3,
        )
    cfg.model[head].loss_decode = [dict(type='DiceLoss'), loss]
    text = refusal(cfg)
    assert f'model.{head}.loss_decode[1].class_weight has 7' in text
    assert 'expected 3' in text


def test_channels_of_an_auxiliary_head(cfg):
    head = dict(
        type='FCNHead',
        in_channels=[32, 16],
        in_index=[2, 1],
        input_transform='resize_concat',
        num_convs=1,
        channels=8,
        num_classes=3,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
    )
    cfg.model.auxiliary_head = ConfigDict(head)
    build_runner(cfg).train()
    cfg.work_dir += '-other'
    cfg.model.auxiliary_head.in_channels = [32, 32]
    assert 'auxiliary_head.in_channels is 64, but' in refusal(cfg)


@pytest.mark.parametrize(
    ('name', 'near'),
    [('mmseg_attn.CCHaed', 'mmseg_attn.CCHead'), ('FCNHaed', 'FCNHead')],
)
def test_unknown_type(cfg, name, near):
    cfg.model.decode_head.type = name
    text = refusal(cfg)
    assert f"type='{name}', which nothing provides" in text
    assert near in text


def test_results_do_not_replace_masks(cfg, data, tmp_path):
    for folder in ('masks/val', 'images/val/deep', 'masks/train'):
        with pytest.raises(UserError, match='could replace pictures'):
            check_output_folder(cfg, data / folder)
    check_output_folder(cfg, tmp_path / 'results')


# What is put in


def test_a_config_is_changed_once_and_not_in_place(cfg):
    before = cfg.pretty_text
    once = build_runner(cfg).cfg
    assert cfg.pretty_text == before
    again = build_runner(once).cfg
    for key in ('train_dataloader', 'val_dataloader', 'custom_hooks'):
        assert once[key] == again[key], key
    types = [step.type for step in once.train_dataloader.dataset.pipeline]
    assert types[1:3] == ['LoadAnnotations', 'mmseg_attn.CheckAnnotations']
    hook = once.default_hooks.checkpoint
    assert hook.type == 'mmseg_attn.SafeCheckpointHook'
    assert hook.interval == cfg.default_hooks.checkpoint.interval


def test_a_written_config_follows_the_head(cfg):
    written = build_runner(cfg).cfg
    written.model.decode_head.num_classes = 5
    pipeline = build_runner(written).cfg.train_dataloader.dataset.pipeline
    assert pipeline[2].type == 'mmseg_attn.CheckAnnotations'
    assert pipeline[2].num_classes == 5


def test_a_config_in_the_work_folder_is_not_written_over(cfg, tmp_path):
    (tmp_path / 'run').mkdir()
    path = tmp_path / 'run' / 'mine.py'
    path.write_text(f'# my notes\n{cfg.pretty_text}')
    before = path.read_text()
    build_runner(Config.fromfile(path))
    assert path.read_text() == before
    # From elsewhere a copy is put there, as mmengine does.
    path.rename(tmp_path / 'mine.py')
    build_runner(Config.fromfile(tmp_path / 'mine.py'))
    assert 'CheckAnnotations' in path.read_text()
    assert (tmp_path / 'mine.py').read_text() == before


def test_amp_on_the_cpu_runs_in_bfloat16(cfg, monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    cfg.optim_wrapper = ConfigDict(
        type='AmpOptimWrapper',
        loss_scale='dynamic',
        dtype='float16',
        use_fsdp=False,
        accumulative_counts=2,
        optimizer=dict(type='SGD', lr=0.1),
    )
    runner = build_runner(cfg)
    dtypes = set()
    layer = runner.model.decode_head.conv_seg
    layer.register_forward_hook(
        lambda module, inputs, output: dtypes.add(
            (module.training, output.dtype)
        )
    )
    before = layer.weight.detach().clone()
    runner.train()
    assert (True, torch.bfloat16) in dtypes
    assert layer.weight.dtype == torch.float32
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('kind', ['images', 'masks'])
def test_unreadable_file(cfg, data, split, kind):
    path = data / kind / split / '1.png'
    path.write_bytes(path.read_bytes()[:60])
    text = refusal(cfg)
    assert str(path) in text and 'cannot be read' in text
    path.unlink()
    cfg.work_dir += '-other'
    if kind == 'masks':
        assert str(path) in refusal(cfg)


def test_mistakes_while_building(cfg):
    cfg.model.decode_head.recurence = 3
    assert "unexpected keyword argument 'recurence'" in refusal(cfg)
    del cfg.model.decode_head['recurence']
    cfg.train_dataloader.dataset.pipeline[4].type = 'RandomFilp'
    text = refusal(cfg)
    assert "type='RandomFilp'" in text and 'RandomFlip' in text


def test_earlier_checkpoints_are_not_trained_over(tmp_path):
    check_unused(tmp_path / 'new')
    (tmp_path / 'best_mIoU_iter_4.pth').touch()
    check_unused(tmp_path)
    (tmp_path / 'iter_4.pth').touch()
    with pytest.raises(UserError, match='iter_4.pth.*--resume'):
        check_unused(tmp_path)
