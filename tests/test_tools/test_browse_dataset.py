# Copyright (c) mmseg_attn contributors.
"""tools/analysis_tools/browse_dataset.py."""

import json
import re
import runpy
import subprocess
import sys

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from tiny_training import CLASSES, ROOT, tiny_config, write_dataset

from mmseg_attn.datasets.scenes import write_folder
from mmseg_attn.visualization.overlay import paint, with_ignored

TOOL = ROOT / 'tools/analysis_tools/browse_dataset.py'
PALETTE = [[40, 40, 40], [250, 0, 0], [0, 250, 0]]
META = dict(classes=CLASSES, palette=PALETTE)
DEMO_PALETTE = Config.fromfile(
    ROOT / 'configs/_base_/datasets/demo-instances.py'
).metainfo.palette


@pytest.fixture
def config(tmp_path):
    data = write_dataset(tmp_path / 'data', pictures=4)
    # Something to be ignored.
    path = data / 'masks/val/1.png'
    mask = cv2.imread(str(path), -1)
    mask[40:, 40:] = 255
    cv2.imwrite(str(path), mask)
    cfg = tiny_config(data, tmp_path / 'run')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.metainfo = META
    path = tmp_path / 'mine.py'
    cfg.dump(str(path))
    return path


@pytest.fixture
def tool(config, tmp_path, monkeypatch, capsys):
    """Call the tool and get its exit code and what it printed."""

    def call(*arguments):
        arguments = [config, '--out', tmp_path / 'shown', *arguments]
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name='__main__')
        return end.value.code, capsys.readouterr()

    return call


def read(folder):
    return {
        path.name: np.asarray(Image.open(path))
        for path in sorted(folder.iterdir())
    }


def test_picture_and_labels(tool, tmp_path):
    """Of validation, where nothing is random: pixel by pixel."""
    code, printed = tool('--split', 'val')
    assert code == 0 and '4 of 4 samples drawn' in printed.out
    shown = read(tmp_path / 'shown')
    assert list(shown) == [f'val_{i:06d}.png' for i in range(4)]
    for number, drawn in enumerate(shown.values()):
        picture = read(tmp_path / 'data/images/val')[f'{number}.png']
        mask = read(tmp_path / 'data/masks/val')[f'{number}.png']
        left, right = drawn[::8, :384:8], drawn[::8, 392:776:8]
        assert np.array_equal(left, picture)
        # What is ignored is white, the farthest from the classes' colours.
        colours = np.array([*PALETTE, [255, 255, 255]])
        expected = 0.4 * picture + 0.6 * colours[np.minimum(mask, 3)]
        assert np.abs(right - expected).max() <= 1


def test_what_is_ignored_has_one_colour_that_no_class_has():
    """White, as of sheets and masks; where a class is white, another."""
    about = {'classes': ['a', 'b'], 'palette': [[0, 0, 0], [250, 0, 0]]}
    names, colours = with_ignored(about)
    assert names == ['a', 'b', 'ignored']
    assert colours == [*about['palette'], [255, 255, 255]]
    mask = np.array([[0, 1, 255]], np.uint8)
    assert (paint(mask, about['palette'])[0] == colours).all()
    about['palette'][0] = [255, 255, 255]  # as the streets of Vaihingen
    _, colours = with_ignored(about)
    apart = np.linalg.norm(np.subtract(colours[:2], colours[2]), axis=1)
    assert min(apart) > 200
    assert (paint(mask, about['palette'])[0] == colours).all()


def test_labels_follow_a_resized_picture(tool, tmp_path):
    size = 'val_dataloader.dataset.pipeline.1.scale=(24,24)'
    assert tool('--split', 'val', '--cfg-options', size)[0] == 0
    drawn = read(tmp_path / 'shown')['val_000000.png']
    mask = read(tmp_path / 'data/masks/val')['0.png'][1::2, 1::2]
    right = drawn[8::16, 400:776:16].astype(int)
    assert np.array_equal(right[..., 0] > right[..., 1] + 60, mask == 1)


def test_seed(tool, tmp_path):
    """The same samples, crops and colours for the same seed."""

    def training(*options):
        assert tool('--number', '3', *options)[0] == 0
        shown = read(tmp_path / 'shown')
        for path in (tmp_path / 'shown').iterdir():
            path.unlink()
        return shown

    first, again, other = training(), training(), training('--seed', '1')
    assert len(first) == 3 and list(first) == list(again)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    both = first.keys() & other.keys()
    assert both
    assert not any(np.array_equal(first[name], other[name]) for name in both)


def test_own_pictures_are_replaced_and_others_kept(tool, tmp_path):
    assert tool('--number', '99')[0] == 0
    assert tool('--number', '99', '--seed', '1')[0] == 0
    path = tmp_path / 'shown/train_000002.png'
    for content in (
        b'notes of mine',
        (tmp_path / 'data/images/train/0.png').read_bytes(),
    ):
        path.write_bytes(content)
        before = read_bytes(tmp_path / 'shown')
        code, _ = tool('--number', '99')
        assert re.match(f'Error: {path} exists and was not written', code)
        assert read_bytes(tmp_path / 'shown') == before
    folder = tmp_path / 'data/images/train'
    assert 'is in the dataset folder' in tool('--out', folder)[0]


def read_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_unreadable_mask(tool, tmp_path):
    """It is named, and the others are drawn."""
    path = tmp_path / 'data/masks/train/2.png'
    path.write_bytes(path.read_bytes()[:40])
    wrong = tmp_path / 'data/masks/train/3.png'
    cv2.imwrite(str(wrong), np.full((48, 48), 7, np.uint8))
    code, printed = tool()
    assert code == 1
    first, second = printed.err.strip().splitlines()
    assert re.match(f'Error: .*{path} cannot be read', first)
    assert re.match(f'Error: {wrong} holds label 7', second)
    assert '2 of 4 samples drawn, 2 could not' in printed.out
    assert list(read(tmp_path / 'shown')) == [
        'train_000000.png',
        'train_000001.png',
    ]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--number', '0'], '--number must be 1 or more, got 0'),
        (
            ['--cfg-options', 'train_dataloader.dataset.data_root=nowhere'],
            'does not exist: nowhere/',
        ),
        (
            ['--cfg-options', 'train_dataloader=None'],
            'the config has no train_dataloader',
        ),
        (
            ['--cfg-options', 'train_dataloader.dataset.type=FolderDatset'],
            "type='FolderDatset', which nothing provides",
        ),
    ],
)
def test_mistakes(tool, arguments, message):
    code, _ = tool(*arguments)
    assert '\n' not in code and re.match(f'Error: .*{message}', code)


def test_pipeline_without_labels(tool, config):
    cfg = Config.fromfile(config)
    del cfg.val_dataloader.dataset.pipeline[2]
    cfg.dump(str(config))
    code, printed = tool('--split', 'val', '--number', '1')
    assert code == 1
    assert 'comes without a label map from the pipeline' in printed.err


@pytest.fixture
def detector(config, tmp_path):
    """A detector's config instead, for a picture with one object."""
    pytest.importorskip('mmcv._ext', reason='mmcv has no compiled operators')
    data = tmp_path / 'scenes'
    write_folder(data, train=4, val=4)
    path = data / 'annotations/val.json'
    content = json.loads(path.read_text())
    content['images'] = content['images'][:1]
    content['annotations'] = content['annotations'][:1]
    path.write_text(json.dumps(content))
    cfg = Config.fromfile(
        ROOT / 'configs/demo/mask-rcnn_r18_fpn_1xb4-1k_demo-instances-96x96.py'
    )
    dataset = cfg.val_dataloader.dataset
    dataset.update(data_root=f'{data}/')
    dataset.pipeline[1].scale = (96, 96)
    cfg.dump(str(config))
    yield path, content
    init_default_scope('mmseg')


@pytest.mark.parametrize('crowd', [0, 1])
def test_instances(detector, tool, tmp_path, crowd):
    """Inside the mask the colour of its class, or that of what is ignored."""
    path, content = detector
    (item,) = content['annotations']
    item['iscrowd'] = crowd
    path.write_text(json.dumps(content))
    code, printed = tool('--split', 'val')
    assert code == 0 and '1 of 1 samples drawn' in printed.out
    assert ('Note: ' in printed.out) is bool(crowd)
    (drawn,) = read(tmp_path / 'shown').values()
    scene = read(tmp_path / 'scenes/images/val')['00000.png'].astype(int)
    left, right = drawn[::4, :384:4], drawn[2::4, 394:778:4].astype(int)
    assert np.array_equal(left, scene)
    code = item['segmentation']
    mask = np.repeat(np.arange(len(code['counts'])) % 2, code['counts'])
    mask = mask.reshape(96, 96).T == 1
    x, y, width, height = item['bbox']
    inner = np.zeros_like(mask)
    inner[y + 6 : y + height - 2, x + 2 : x + width - 2] = True
    near = np.zeros_like(mask)
    near[max(y - 4, 0) : y + height + 4, max(x - 4, 0) :] = True
    assert (mask & inner).sum() > 20
    # The visualizer jitters colours and draws them with an opacity of 0.6.
    colours = np.array(DEMO_PALETTE)
    expected = 0.4 * scene[..., None, :] + 0.6 * colours
    wrong = np.abs(right[..., None, :] - expected)[mask & inner].mean((0, 2))
    if crowd:
        assert wrong.min() > 40
    else:
        assert wrong[item['category_id'] - 1] < 30
    assert np.abs(right - scene)[~near].max() <= 3


def test_pictures_and_annotations_of_a_detector(detector, tool, tmp_path):
    """What cannot be read is named."""
    path, content = detector
    content['annotations'][0]['category_id'] = 99
    path.write_text(json.dumps(content))
    assert re.match(
        f'Error: {path}, annotation id 1 has the category 99',
        tool('--split', 'val')[0],
    )
    content['annotations'] = []
    path.write_text(json.dumps(content))
    picture = tmp_path / 'scenes/images/val/00000.png'
    for length in (40, 0):
        picture.write_bytes(picture.read_bytes()[:length])
        code, printed = tool('--split', 'val')
        assert code == 1
        assert f'{picture} cannot be read as a picture' in printed.err


def test_scenes_as_a_command(tmp_path):
    """The demo's config by its name, in the folder of its data."""

    def run(*command):
        return subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={'PYTHONPATH': str(ROOT), 'PATH': ''},
            capture_output=True,
            text=True,
        )

    folder = 'data/scenes'
    run('-m', 'mmseg_attn', 'scenes', folder, '--train', '4', '--val', '4')
    name = 'ccnet-r2_r18-s4_1xb8-1k_demo-scenes-96x96'
    done = run(TOOL, name, '--out', 'shown')
    assert done.returncode == 0, done.stderr
    assert '4 of 4 samples drawn' in done.stdout
    scene = read(tmp_path / folder / 'images/train')['00000.png']
    left = read(tmp_path / 'shown')['train_000000.png'][::4, :384:4]
    flips = (scene, scene[::-1], scene[:, ::-1], scene[::-1, ::-1])
    assert any(np.array_equal(left, flip) for flip in flips)
