# Copyright (c) mmseg_attn contributors.
"""Clips from disk: which frames, alike transforms, and what is wrong."""

import json
import os
import random
import struct

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS

from mmseg_attn.datasets import (
    CamVidClipDataset,
    ClipDataset,
    ClipFolderDataset,
)
from mmseg_attn.datasets.scenes.clips import write_clips
from mmseg_attn.errors import UserError
from mmseg_attn.video import (
    count_frames,
    read_frame,
    read_video,
    write_video,
)
from mmseg_attn.video.clips import clip_paths

META = dict(classes=('a', 'b'), palette=[[0, 0, 0], [9, 9, 9]])


def picture(path, value=0, height=12, width=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(value)
    pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)
    return pixels


def mask(path, height=12, width=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.eye(height, width, dtype=np.uint8))


def numbers(paths):
    return [int(p.rsplit('_', 1)[1].removesuffix('.png')) for p in paths]


@pytest.mark.parametrize(
    ('label', 'frames', 'at', 'step', 'expected'),
    [
        (40, 5, 2, 10, [20, 30, 40, 50, 60]),
        (10, 5, 2, 10, [10, 10, 10, 20, 30]),  # the beginning
        (60, 5, 2, 10, [40, 50, 60, 60, 80]),  # a gap
        (80, 3, 1, 10, [80, 80, 80]),  # 70 is not there
        (60, 3, 2, 20, [20, 40, 60]),  # the last one labelled
        (40, 1, 0, 10, [40]),
        (40, 4, 2, 10, [20, 30, 40, 50]),  # even
    ],
)
def test_neighbours(tmp_path, label, frames, at, step, expected):
    for number in (10, 20, 30, 40, 50, 60, 80):
        (tmp_path / f'0001TP_{number:06d}.png').touch()
        (tmp_path / f'0006R0_{number + 10:06d}.png').touch()  # another one
    path = str(tmp_path / f'0001TP_{label:06d}.png')
    found = clip_paths(path, frames, at, step)
    assert found[at] == path
    assert numbers(found) == expected
    assert all('0001TP' in p for p in found)


def test_names(tmp_path):
    """Letters before the number, numbers without zeros, and none at all."""
    for name in ('Seq05VD_f00030', 'Seq05VD_f00000', 'x9', 'x10', 'plain'):
        (tmp_path / f'{name}.png').touch()

    def find(name, step):
        found = clip_paths(str(tmp_path / f'{name}.png'), 3, 1, step)
        return [p.rsplit('/', 1)[1].removesuffix('.png') for p in found]

    assert find('Seq05VD_f00030', 30) == [
        *('Seq05VD_f00000', 'Seq05VD_f00030', 'Seq05VD_f00030')
    ]
    assert find('x9', 1) == ['x9', 'x9', 'x10']
    assert find('x10', 1) == ['x9', 'x10', 'x10']
    assert find('plain', 1) == ['plain'] * 3


@pytest.fixture
def camvid(tmp_path):
    for index in range(4):
        name = f'0001TP_{6690 + 30 * index:06d}.png'
        picture(tmp_path / f'images/train/{name}', index)
        mask(tmp_path / f'annotations/train/{name}')
    return tmp_path


PREFIX = dict(img_path='images/train', seg_map_path='annotations/train')
PIPELINE = [
    dict(type='mmseg_attn.LoadClip'),
    dict(type='LoadAnnotations'),
    dict(type='mmseg_attn.PackClipInputs'),
]


def test_camvid(camvid):
    dataset = CamVidClipDataset(
        data_root=str(camvid),
        data_prefix=PREFIX,
        frame_step=30,
        pipeline=PIPELINE,
    )
    assert len(dataset) == 4 and len(dataset.metainfo['classes']) == 11
    item = dataset.get_data_info(1)
    assert numbers(item['frame_paths']) == [6690, 6690, 6720, 6750, 6780]
    sample = dataset[1]
    assert sample['inputs'].shape == (3, 5, 12, 16)
    assert sample['data_samples'].metainfo['label_frame'] == 2
    for place, path in enumerate(item['frame_paths']):
        expected = cv2.imread(path).transpose(2, 0, 1)
        assert np.array_equal(sample['inputs'][:, place], expected)
    expected = cv2.imread(item['seg_map_path'], 0)
    label = sample['data_samples'].gt_sem_seg.data[0]
    assert np.array_equal(label, expected)


def test_frames_elsewhere(camvid):
    """The labelled picture is the dataset's, the others are not."""
    for number in (6719, 6721):
        picture(camvid / f'frames/0001TP_{number:06d}.png', number)
    dataset = ClipDataset(
        data_root=str(camvid),
        data_prefix={**PREFIX, 'frame_path': 'frames'},
        img_suffix='.png',
        metainfo=META,
        frames=3,
        pipeline=PIPELINE,
    )
    found = [dataset.get_data_info(i)['frame_paths'] for i in range(4)]
    assert numbers(found[1]) == [6719, 6720, 6721]
    assert [p.split('/')[-2] for p in found[1]] == [
        'frames',
        'train',
        'frames',
    ]
    assert len(set(found[0])) == 1


def test_what_is_wrong(camvid):
    options = dict(data_root=str(camvid), data_prefix=PREFIX)
    with pytest.raises(UserError, match='none of 4 pictures has another'):
        CamVidClipDataset(**options, frame_step=7)
    with pytest.raises(UserError, match='label_frame of 0 to frames - 1'):
        CamVidClipDataset(**options, frames=3, label_frame=3)
    dataset = CamVidClipDataset(
        **options, frames=3, frame_step=30, pipeline=PIPELINE
    )
    picture(camvid / 'images/train/0001TP_006750.png', 0, width=20)
    with pytest.raises(UserError, match='006750.png is 20 x 12 .* 16 x 12'):
        dataset[1]
    (camvid / 'images/train/0001TP_006750.png').write_bytes(b'no')
    with pytest.raises(UserError, match='006750.png cannot be read'):
        dataset[1]


@pytest.fixture
def video(tmp_path):
    (tmp_path / 'videos').mkdir()
    with write_video(tmp_path / 'videos/road.mp4', 10) as writer:
        for index in range(12):
            writer.write(np.full((12, 16, 3), 20 * index, np.uint8))
    return tmp_path


def test_folders_that_are_not_there(camvid):
    options = dict(data_root=str(camvid), metainfo=META)
    with pytest.raises(UserError, match=r"frame_path is '.*/no', expected a"):
        ClipDataset(**options, data_prefix={**PREFIX, 'frame_path': 'no'})
    for there, absent in (('video', 'seg_map'), ('seg_map', 'video')):
        prefix = {f'{there}_path': 'images', f'{absent}_path': 'no'}
        with pytest.raises(UserError, match=f'{absent}_path is .*expected a'):
            ClipDataset(**options, data_prefix=prefix)
    prefix = dict(video_path='images', seg_map_path='images')
    with pytest.raises(UserError, match=r'no mask \*\.webp in .*/images'):
        ClipDataset(**options, data_prefix=prefix, seg_map_suffix='.webp')


def test_frames_that_come_later(tmp_path):
    """A folder that was listed before is listed again."""
    (tmp_path / 'a_1.png').touch()
    os.utime(tmp_path, (0, 0))  # times of files tell no less than a tick
    assert numbers(clip_paths(str(tmp_path / 'a_1.png'), 3, 1, 1)) == [1, 1, 1]
    (tmp_path / 'a_2.png').touch()
    assert numbers(clip_paths(str(tmp_path / 'a_1.png'), 3, 1, 1)) == [1, 1, 2]


def test_listed_frames_of_a_video(video):
    """Masks may be in subfolders, and a list may choose among them."""
    for name in ('road_000001', 'sub/road_000006', 'road_000099'):
        mask(video / f'masks/{name}.png')
    (video / 'val.txt').write_text('road_000001\nsub/road_000006\n\n')
    options = dict(
        data_root=str(video),
        data_prefix=dict(video_path='videos', seg_map_path='masks'),
        metainfo=META,
        ann_file='val.txt',
        pipeline=PIPELINE,
    )
    dataset = ClipDataset(**options)
    paths = [dataset.get_data_info(i)['seg_map_path'] for i in range(2)]
    assert [p.split('masks/')[1] for p in paths] == [
        *('road_000001.png', 'sub/road_000006.png')
    ]
    assert dataset[1]['inputs'].shape == (3, 5, 12, 16)
    (video / 'val.txt').write_text('road_000002\n')
    with pytest.raises(UserError, match=r'val\.txt names .*_000002\.png: not'):
        ClipDataset(**options)
    with pytest.raises(UserError, match=r'no\.txt does not exist'):
        ClipDataset(**{**options, 'ann_file': 'no.txt'})
    (video / 'videos/road.avi').touch()
    with pytest.raises(UserError, match='expected one video of a name'):
        ClipDataset(**options)


def uneven(path):
    """Let the second half of a video's frames last longer than the first."""
    data = path.read_bytes()
    at = data.index(b'stts') - 4  # the box of the durations
    count, ticks = struct.unpack('>II', data[at + 16 : at + 24])
    half = count // 2
    runs = (half, ticks // 2, count - half, ticks * 3 // 2)
    box = struct.pack('>I4s6I', 32, b'stts', 0, 2, *runs)
    data = bytearray(data[:at] + box + data[at + 24 :])
    for name in (b'moov', b'trak', b'mdia', b'minf', b'stbl'):
        at = data.index(name) - 4
        (size,) = struct.unpack('>I', data[at : at + 4])
        data[at : at + 4] = struct.pack('>I', size + 8)
    path.write_bytes(data)


def test_variable_frame_rate(tmp_path):
    """The frame of a number is that which is reached by counting."""
    path = tmp_path / 'uneven.mp4'
    with write_video(path, 10) as writer:
        for index in range(60):
            writer.write(np.full((12, 16, 3), 4 * index, np.uint8))
    uneven(path)
    with read_video(path) as video:
        counted = list(video)
        jumped = video.seek(49)
    assert jumped is None or not np.array_equal(jumped, counted[49])
    for index in (0, 28, 49, 59):
        assert np.array_equal(read_frame(path, index), counted[index])
    assert count_frames(path) == 60


def test_of_a_video(video):
    for number in (0, 6, 11):
        mask(video / f'masks/road_{number:06d}.png')
    options = dict(
        data_root=str(video),
        data_prefix=dict(video_path='videos', seg_map_path='masks'),
        metainfo=META,
        pipeline=PIPELINE,
    )
    dataset = ClipDataset(**options, frame_step=2)
    assert len(dataset) == 3
    values = [
        np.rint(dataset[i]['inputs'].float().mean((0, 2, 3)).numpy() / 20)
        for i in range(3)
    ]
    assert values[0].tolist() == [0, 0, 0, 2, 4]
    assert values[1].tolist() == [2, 4, 6, 8, 10]
    assert values[2].tolist() == [7, 9, 11, 11, 11]
    with pytest.raises(UserError, match=r'road\.mp4 ends early: frame 12'):
        read_frame(video / 'videos/road.mp4', 12)
    mask(video / 'masks/road_000012.png')
    with pytest.raises(UserError, match='frame 12, but .* ends after 12'):
        ClipDataset(**options)
    mask(video / 'masks/lane_000001.png')
    with pytest.raises(UserError, match='lane_000001.png labels no frame'):
        ClipDataset(**options)


def test_mxf(tmp_path):
    """The container of CamVid's videos, counted and jumped in."""
    path = tmp_path / 'a.MXF'
    code = cv2.VideoWriter_fourcc(*'MPG2')
    writer = cv2.VideoWriter(str(path), code, 30, (64, 48))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no MXF')
    for index in range(12):
        writer.write(np.full((48, 64, 3), 20 + 18 * index, np.uint8))
    writer.release()
    assert path.read_bytes()[:4] == b'\x06\x0e\x2b\x34'
    assert count_frames(path) == 12
    for index in (11, 3, 0, 7):
        grey = read_frame(path, index).mean()
        assert abs(grey - (20 + 18 * index)) < 9, index


def test_names_of_camvids_masks(tmp_path):
    """0006R0_f00930 is frame 930 of 0006R0.MXF, Seq05VD that of 0005VD."""
    frames = [np.full((12, 16, 3), 20 * i, np.uint8) for i in range(6)]
    (tmp_path / 'videos').mkdir()
    for name in ('0006R0', '0005VD', '01TP_extract'):
        path = tmp_path / 'videos' / name
        with write_video(path.with_suffix('.mp4'), 30) as writer:
            for frame in frames:
                writer.write(frame)
        if name != '01TP_extract':
            path.with_suffix('.mp4').rename(path.with_suffix('.MXF'))
    for name in ('0006R0_f00002', 'Seq05VD_f00003', '0001TP_000004'):
        mask(tmp_path / f'masks/{name}.png')
    dataset = CamVidClipDataset(
        data_root=str(tmp_path),
        data_prefix=dict(video_path='videos', seg_map_path='masks'),
        frames=3,
        pipeline=PIPELINE,
    )
    middles = [item['inputs'][:, 1].float().mean() / 20 for item in dataset]
    found = [dataset.get_data_info(i)['img_path'] for i in range(3)]
    assert [path.rsplit('/', 1)[1] for path in found] == [
        *('01TP_extract#4.mp4', '0006R0#2.MXF', '0005VD#3.MXF')
    ]
    assert np.rint(middles).tolist() == [4, 2, 3]
    # A video whose own name ends so comes first.
    mask(tmp_path / 'more/a_f_000001.png')
    for name in ('a', 'a_f'):
        with write_video(tmp_path / f'videos/{name}.mp4', 30) as writer:
            writer.write(frames[0])
            writer.write(frames[1])
    options = dict(metainfo=META, data_root=str(tmp_path))
    prefix = dict(video_path='videos', seg_map_path='more')
    info = ClipDataset(**options, data_prefix=prefix).get_data_info(0)
    assert info['img_path'].endswith('/a_f#1.mp4')


TRANSFORM_OF_PICTURES = [
    dict(
        type='RandomResize',
        scale=(32, 24),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=(10, 14), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
]


def test_all_frames_alike():
    """As the host's transforms treat one picture, with the same numbers."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (24, 32, 3), 'u1') for _ in range(3)]
    label = rng.integers(0, 2, (24, 32), dtype=np.uint8)
    ours = TRANSFORMS.build(
        dict(type='mmseg_attn.ClipTransform', transforms=TRANSFORM_OF_PICTURES)
    )
    theirs = Compose(TRANSFORM_OF_PICTURES)

    def results(**more):
        return dict(
            more,
            gt_seg_map=label.copy(),
            seg_fields=['gt_seg_map'],
            img_shape=(24, 32),
        )

    seen = set()
    for seed in range(8):
        expected = []
        for frame in frames:
            random.seed(seed)
            np.random.seed(seed)
            expected.append(theirs(results(img=frame.copy())))
        random.seed(seed)
        np.random.seed(seed)
        clip = [frame.copy() for frame in frames]
        found = ours(results(img=clip[1], clip=clip, label_frame=1))
        after = np.random.rand()
        for one, other in zip(found['clip'], expected, strict=True):
            assert np.array_equal(one, other['img'])
        assert np.array_equal(found['gt_seg_map'], expected[1]['gt_seg_map'])
        assert np.array_equal(found['img'], found['clip'][1])
        np.random.seed(seed)
        theirs(results(img=frames[2].copy()))
        assert after == np.random.rand()
        seen.add(found['img'].tobytes())
    assert len(seen) == 8


def test_demo_clips(tmp_path):
    """In the labelled frame, nothing tells the classes apart."""
    write_clips(tmp_path, seed=1, train=4, val=8, frames=5)
    dataset = ClipFolderDataset(
        str(tmp_path),
        data_prefix=dict(
            img_path='images/val',
            seg_map_path='masks/val',
            frame_path='frames/val',
        ),
        pipeline=PIPELINE,
    )
    assert len(dataset) == 8
    groups = json.loads((tmp_path / 'dataset.json').read_text())['groups']
    assert dataset.metainfo['groups'] == groups and len(groups) == 3
    samples = [dataset[i] for i in range(8)]
    for four in (samples[:4], samples[4:]):
        clips = torch.stack([s['inputs'] for s in four]).int()
        labels = torch.stack([s['data_samples'].gt_sem_seg.data for s in four])
        # The four differ in all frames but the labelled one.
        differ = (clips != clips[:1]).flatten(3).any(-1).any(0).any(0)
        assert differ.tolist() == [True, True, False, True, True]
        assert (clips[:, :, differ] == clips[:, :, :1]).all()
        lit = clips[:, :, 0]
        flags = (labels == 1) | (labels == 2)
        changed = (lit != clips[:, :, 2]).any(1, keepdim=True)
        assert (changed & ~flags).sum() == 0
        red_above_blue = lit[:, 2] > lit[:, 0]  # BGR
        assert red_above_blue[(labels == 1)[:, 0]].all()
        assert not red_above_blue[(labels == 2)[:, 0]].any()
        for first in (1, 3, 5):  # half of the four have either colour
            pixels = [(labels == first + i).sum() for i in (0, 1)]
            assert pixels[0] == pixels[1] > 0
    with pytest.raises(ValueError, match='clips of 1 frames'):
        write_clips(tmp_path / 'one', frames=1)
    # A clip of 7 frames has its label on another one.
    for change in (dict(val=4), dict(val=8, frames=7)):
        with pytest.raises(ValueError, match=r'holds 0000._002\.png, which'):
            write_clips(tmp_path, seed=1, train=4, **change)
