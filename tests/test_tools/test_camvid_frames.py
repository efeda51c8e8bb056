# Copyright (c) mmseg_attn contributors.
"""Frames around CamVid's stills: found in videos, checked, written."""

import re

import cv2
import numpy as np
import pytest
from in_process import run_script
from tiny_training import ROOT

from mmseg_attn.datasets import CamVidClipDataset
from mmseg_attn.video import read_video, write_video

TOOL = ROOT / 'tools/dataset_converters/camvid_frames.py'
FIRST = 6660  # of 0001TP: its numbers do not begin with 0


def scene(length=40, seed=0, height=48, width=64):
    """A camera that moves over a picture."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (height // 8, 3 * width // 8, 3), np.uint8)
    wide = cv2.resize(wide, (3 * width, height))
    return [wide[:, 2 * i : 2 * i + width] for i in range(length)]


def write_videos(folder, frames):
    folder.mkdir()
    for name in ('01TP_extract', '0006R0'):
        with write_video(folder / f'{name}.mp4', 30) as writer:
            for frame in frames[name]:
                writer.write(frame)
    (folder / '0006R0.mp4').rename(folder / '0006R0.MXF')
    read = {}
    for path in folder.iterdir():
        with read_video(path) as video:
            read[path.stem] = list(video)
    return read


@pytest.fixture
def camvid(tmp_path):
    """Videos, stills that are frames of them, and the frames."""
    frames = {'01TP_extract': scene(), '0006R0': scene(seed=1)}
    frames = write_videos(tmp_path / 'videos', frames)
    for split, names in (
        ('train', [f'0001TP_{FIRST + 10:06d}', f'0001TP_{FIRST + 20:06d}']),
        ('test', ['0006R0_f00006', '0006R0_f00030']),
    ):
        folder = tmp_path / f'data/images/{split}'
        folder.mkdir(parents=True)
        for name in names:
            start = FIRST if name[:4] == '0001' else 0
            video = '01TP_extract' if start else '0006R0'
            index = int(re.search(r'\d+$', name)[0]) - start
            cv2.imwrite(str(folder / f'{name}.png'), frames[video][index])
            masks = tmp_path / f'data/annotations/{split}/{name}.png'
            masks.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(masks), np.zeros((48, 64), np.uint8))
    return tmp_path, frames


def run(folder, *arguments):
    return run_script(
        TOOL, folder / 'videos', '--data', folder / 'data', *arguments
    )


def test_frames_around_each_still(camvid):
    folder, frames = camvid
    done = run(folder)
    assert done.returncode == 0, done.stderr
    words = ' '.join(done.stdout.split())
    for text in (f'01TP_extract.mp4, number - {FIRST}', '0006R0.MXF, number'):
        assert f'2 of 2 stills are frames of {text}' in words
    assert 'number - 0;' in words
    assert '0 are nearer to another frame' in words
    found = {p.stem: p for p in (folder / 'data/frames').iterdir()}
    expected = {
        **{
            f'0001TP_{FIRST + i + d:06d}': frames['01TP_extract'][i + d]
            for i in (10, 20)
            for d in (-2, -1, 1, 2)
        },
        **{
            f'0006R0_f{i + d:05d}': frames['0006R0'][i + d]
            for i in (6, 30)
            for d in (-2, -1, 1, 2)
        },
    }
    assert set(found) == set(expected)
    for name, frame in expected.items():
        assert np.array_equal(cv2.imread(str(found[name])), frame), name
    # The dataset of the configs finds them.
    dataset = CamVidClipDataset(
        data_root=str(folder / 'data'),
        data_prefix=dict(
            img_path='images/test',
            seg_map_path='annotations/test',
            frame_path='frames',
        ),
        frames=5,
        frame_step=1,
    )
    paths = dataset.get_data_info(0)['frame_paths']
    numbers = [int(path[-9:-4]) for path in paths]
    assert numbers == [4, 5, 6, 7, 8]
    again = run(folder)
    assert '0001TP: 0 frames written' in again.stdout


def test_smaller_stills_and_other_steps(camvid):
    """The stills of SegNet's folder are half as large."""
    folder, frames = camvid
    for path in folder.glob('data/images/*/*.png'):
        half = cv2.resize(
            cv2.imread(str(path)), (32, 24), interpolation=cv2.INTER_AREA
        )
        cv2.imwrite(str(path), half)
    done = run(folder, '--around', '1', '--step', '3')
    assert done.returncode == 0, done.stderr
    names = sorted(p.stem for p in folder.glob('data/frames/0006*'))
    assert names == [f'0006R0_f000{n}' for n in ('03', '09', '27', '33')]
    picture = cv2.imread(str(folder / 'data/frames/0006R0_f00009.png'))
    expected = cv2.resize(
        frames['0006R0'][9], (32, 24), interpolation=cv2.INTER_AREA
    )
    assert np.array_equal(picture, expected)


def test_what_does_not_fit_is_said(camvid):
    folder, _ = camvid
    stray = folder / 'data/images/test/0006R0_f00020.png'
    cv2.imwrite(str(stray), scene(seed=5)[0])
    done = run(folder)
    assert '2 of 3 stills are frames of 0006R0.MXF' in (
        ' '.join(done.stdout.split())
    )
    (folder / 'videos/0006R0.MXF').unlink()
    done = run(folder)
    assert '0006R0: no video, 3 stills stay alone' in done.stdout
    for path in folder.glob('data/images/train/*.png'):
        cv2.imwrite(str(path), scene(seed=7)[3])
    done = run(folder)
    assert done.returncode
    assert '01TP_extract.mp4 does not hold the stills of 0001TP' in done.stderr
    (folder / 'videos/01TP_extract.mp4').unlink()
    done = run(folder)
    assert 'is called as one of 01TP_extract, 0006R0' in done.stderr
