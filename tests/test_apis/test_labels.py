# Copyright (c) mmseg_attn contributors.
"""What `labels` counts and finds, against files written here."""

import json
import re

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from tiny_segmentor import config_text, write_dataset

from mmseg_attn.__main__ import main
from mmseg_attn.apis.labels import check_labels
from mmseg_attn.datasets.scenes import write_folder


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path / 'data', 4)
    config = tmp_path / 'tiny.py'
    config.write_text(config_text(tmp_path / 'data'))
    return tmp_path


def reports(folder, **options):
    cfg = Config.fromfile(folder / 'tiny.py')
    cfg.merge_from_dict(options)
    return list(check_labels(cfg))


def test_counts_are_those_of_the_files(folder):
    mask = np.zeros((64, 64), np.uint8)
    mask[:10] = 255
    cv2.imwrite(str(folder / 'data/masks/0.png'), mask)
    # Training and test read one folder, which is read once.
    (report,) = reports(folder)
    masks = [
        np.asarray(Image.open(path))
        for path in (folder / 'data/masks').iterdir()
    ]
    assert report.title.startswith('train, test: BaseSegDataset')
    assert report.maps == 4
    assert report.problems == []
    for value in (0, 1, 255):
        assert report.pixels[value] == sum((m == value).sum() for m in masks)
        assert report.pictures[value] == sum((m == value).any() for m in masks)
    assert report.pixels.total() == 4 * 64 * 64
    assert report.absent() == []


def test_every_fault_is_found_and_names_its_file(folder, capsys):
    masks, images = folder / 'data/masks', folder / 'data/images'
    wrong = np.zeros((64, 64), np.uint8)
    wrong[3, :5] = 7
    cv2.imwrite(str(masks / '0.png'), wrong)
    cv2.imwrite(str(masks / '1.png'), np.zeros((64, 60), np.uint8))
    (masks / '2.png').write_bytes(b'no picture')
    whole = (images / '3.png').read_bytes()
    (images / '3.png').write_bytes(whole[: len(whole) // 8])
    write_dataset(folder / 'more', 2)
    for kind in ('images', 'masks'):
        for name in ('0', '1'):
            source = folder / f'more/{kind}/{name}.png'
            source.rename(folder / f'data/{kind}/more{name}.png')
    (masks / 'more0.png').unlink()
    colour = np.zeros((64, 64, 3), np.uint8)
    cv2.imwrite(str(masks / 'more1.png'), colour)
    assert main(['labels', str(folder / 'tiny.py')]) == 1
    out = ' '.join(capsys.readouterr().out.split())
    for expected in (
        '0.png holds label 7 (5 pixels): expected 0 to 1',
        '1.png is 60 x 64 pixels, but its picture',
        '2.png cannot be read',
        '3.png cannot be read as a picture',
        'more0.png cannot be read',
        'more1.png is a colour picture',
        '6 problems',
        'no class',
    ):
        assert expected in out, f'{expected!r} is not in:\n{out}'


def test_classes_against_the_head(folder):
    options = {'model.decode_head.num_classes': 3}
    (report,) = reports(folder, **options)
    assert report.problems == [
        'model.decode_head.num_classes is 3, but the dataset has 2 classes.'
    ]


def test_class_that_never_occurs(folder, capsys):
    for path in (folder / 'data/masks').iterdir():
        cv2.imwrite(str(path), np.zeros((64, 64), np.uint8))
    assert main(['labels', str(folder / 'tiny.py')]) == 0
    assert 'No map has disc.' in capsys.readouterr().out


def test_reduce_zero_label(folder, capsys):
    """0 is ignored and 1 is the first class: 2 is out of range for one."""
    for loader in ('train', 'test'):
        path = folder / 'tiny.py'
        path.write_text(
            path.read_text()
            + f"{loader}_dataloader['dataset']['reduce_zero_label'] = True\n"
            + f"{loader}_dataloader['dataset']['pipeline'] = "
            "[load, dict(type='LoadAnnotations', reduce_zero_label=True), "
            'pack[1]]\n'
        )
    (report,) = reports(folder)
    assert report.shift == 1
    truth = [cv2.imread(str(p), 0) for p in (folder / 'data/masks').iterdir()]
    assert report.pixels[0] == sum((mask == 1).sum() for mask in truth)
    assert report.pixels[255] == sum((mask == 0).sum() for mask in truth)
    assert report.problems == []


def test_missing_folder_and_no_dataset(folder):
    (folder / 'data/masks').rename(folder / 'data/elsewhere')
    with pytest.raises(SystemExit, match='masks'):
        main(['labels', str(folder / 'tiny.py')])
    with pytest.raises(SystemExit, match='no dataset for val'):
        main(['labels', str(folder / 'tiny.py'), '--split', 'val'])


def test_empty_folder(folder):
    for path in (folder / 'data/images').iterdir():
        path.unlink()
    with pytest.raises(SystemExit, match='no sample found by .*images'):
        main(['labels', str(folder / 'tiny.py')])


def test_black_and_white_masks(folder, capsys):
    for path in (folder / 'data/masks').iterdir():
        cv2.imwrite(str(path), 255 * cv2.imread(str(path), -1))
    path = folder / 'data/images/0.png'
    path.rename(path.with_suffix('.PNG'))
    assert main(['labels', str(folder / 'tiny.py')]) == 1
    out = ' '.join(capsys.readouterr().out.split())
    assert 'the 3 masks hold 0 and 255 alone, and 255 is ignored: disc' in out
    assert 'end in .PNG and are not used, such as 0.PNG' in out
    assert 'have no picture and are not used, such as 0.png' in out


def test_of_a_detector(tmp_path, capsys):
    """The categories of its annotation files, and what is left out."""
    pytest.importorskip('mmdet')
    write_folder(tmp_path / 'scenes', train=8, val=4)
    path = tmp_path / 'scenes/annotations/train.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['area'] = 0
    path.write_text(json.dumps(content))
    name = 'mask-rcnn_r18_fpn_1xb4-1k_demo-instances-96x96'
    options = ['--cfg-options']
    for split in ('train', 'val', 'test'):
        root = f'{tmp_path}/scenes/'
        options.append(f'{split}_dataloader.dataset.data_root={root}')
    assert main(['labels', name, *options]) == 0
    out = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
    assert 'train.json: 8 pictures, 48 instances' in out
    assert out.count('val.json: 4 pictures, 24 instances') == 1
    assert '1 annotations are left out: area of 0 or less (ids 1)' in out
    assert re.search(r"red flag's box 8 6", out)
    content['annotations'][1]['category_id'] = 77
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match='id 2 has the category 77'):
        main(['labels', name, *options])
    with pytest.raises(SystemExit, match='is of a detector'):
        main(['worst', name, 'none.pth'])


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Folders of their own, named as the command is to name them."""
    write_dataset(tmp_path, 5)
    monkeypatch.chdir(tmp_path)
    return tmp_path, ['labels', '--images', 'images', '--masks', 'masks']


def test_raw_folders_need_no_config(raw, capsys):
    folder, call = raw
    (folder / 'dataset.json').write_text('{"classes": ["sand", "ship"]}')
    assert main(call) == 0
    out = capsys.readouterr().out
    assert re.search(r'\| ship +\| +\d+\.\d % +\| 4 ', out)
    assert 'Good.' in out
    assert out.endswith(
        'Next: python -m mmseg_attn train --images images --masks masks\n'
    )
    assert main([*call, '--classes', 'a,b,un seen']) == 0
    out = capsys.readouterr().out
    assert 'Warning: class un seen never occurs.' in out
    assert 'No problem, but see above.' in out and 'sand' not in out
    assert out.endswith("masks --classes 'a,b,un seen'\n")


def test_every_fault_of_raw_folders_is_found(raw, capsys):
    folder, call = raw
    wrong = np.zeros((64, 64), np.uint8)
    for name, value in (('0', 7), ('1', 9)):
        wrong[3, :5] = value
        cv2.imwrite(f'masks/{name}.png', wrong)
    cv2.imwrite('masks/2.png', np.zeros((64, 60), np.uint8))
    (folder / 'images/3.png').write_bytes(b'no picture')
    (folder / 'masks/4.png').unlink()
    assert main([*call, '--classes', 'sand,ship']) == 1
    out = capsys.readouterr().out
    for expected in (
        'masks/0.png holds 7, which is none of the 2 classes of --classes',
        'masks/1.png holds 9, which is none',
        'images/2.png has 64 x 64 pixels, but its mask masks/2.png has 60',
        'images/3.png',
        'no mask for images/4.png: expected masks/4.png',
        '5 problems.',
    ):
        assert expected in out
    assert 'Next:' not in out


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ([], 'expected a config, or --images and --masks'),
        (['tiny.py', '--images', 'a', '--masks', 'b'], 'expected a config'),
        (['--images', 'a'], 'expected a config, or --images and --masks'),
        (['tiny.py', '--classes', 'a,b'], '--classes is for --images'),
        (['--images', 'a', '--masks', 'b'], 'folder of pictures does not'),
    ],
)
def test_labels_takes_a_config_or_folders(args, message):
    with pytest.raises(SystemExit, match=message):
        main(['labels', *args])
