# Copyright (c) mmseg_attn contributors.
"""Pairs from disk: formats, pairing, splits, and what is wrong with them."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose

from mmseg_attn.datasets import SceneFlowDataset, StereoFolder
from mmseg_attn.datasets.scenes.stereo import make_pair, write_pairs
from mmseg_attn.errors import UserError
from mmseg_attn.pictures.disparity_files import (
    read_disparity,
    read_pfm,
    write_pfm,
    write_png,
)

LOAD = [
    dict(type='mmseg_attn.LoadStereoPair'),
    dict(type='mmseg_attn.LoadDisparity'),
]
PACK = dict(type='mmseg_attn.PackStereoInputs')


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 60, shape).astype('f4')


def test_pfm_bytes(tmp_path):
    """Bottom row first; either byte order, as a negative scale tells."""
    path = tmp_path / 'a.pfm'
    rows = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    body = np.array([4, 5, 6, 1, 2, 3], np.float32)
    path.write_bytes(b'Pf\n3 2\n-1.0\n' + body.astype('<f4').tobytes())
    assert np.array_equal(read_pfm(path), rows)
    path.write_bytes(b'Pf 3 2 1\n' + body.astype('>f4').tobytes())
    assert np.array_equal(read_pfm(path), rows)
    path.write_bytes(b'Pf\r\n3 2\r\n-1e0\r\n' + body.astype('<f4').tobytes())
    assert np.array_equal(read_pfm(path), rows)
    # The scale of Middlebury's files, whose numbers are pixels all the same.
    path.write_bytes(b'Pf\n3 2\n-0.003922\n' + body.astype('<f4').tobytes())
    assert np.array_equal(read_pfm(path), rows)
    write_pfm(path, rows)
    assert path.read_bytes() == b'Pf\n3 2\n-1.0\n' + body.tobytes()
    # What a few writers leave behind the numbers; no whole row.
    for rest in (b'\n', b'\r\n', bytes(16)):
        path.write_bytes(b'Pf\n3 2\n-1.0\n' + body.tobytes() + rest)
        assert np.array_equal(read_pfm(path), rows)


def test_any_infinity_is_unknown(tmp_path):
    rows = np.array([[1, np.inf], [-np.inf, 2]], np.float32)
    write_pfm(tmp_path / 'a.pfm', rows)
    found = read_disparity(tmp_path / 'a.pfm')
    assert found.tolist() == [[1, np.inf], [np.inf, 2]]


def test_formats_agree_with_opencv(tmp_path):
    disparity = numbers(5, 7)
    write_pfm(tmp_path / 'a.pfm', disparity)
    theirs = cv2.imread(str(tmp_path / 'a.pfm'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(theirs, disparity)
    disparity[0, 0], disparity[1, 1] = np.inf, 300
    disparity[2, 2] = 0  # known, and 0 in the file is unknown
    write_png(tmp_path / 'a.png', disparity)
    steps = cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED)
    assert steps.dtype == np.uint16
    assert steps[0, 0] == 0 and steps[1, 1] == 65535 and steps[2, 2] == 1
    back = read_disparity(tmp_path / 'a.png')
    assert np.isinf(back[0, 0])
    disparity[0, 0] = disparity[1, 1] = back[0, 0] = back[1, 1] = 0
    assert np.abs(back - disparity).max() <= 1 / 256


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('a.pfm', b'PF\n1 1\n-1\n' + bytes(12), 'got one of colours'),
        ('a.pfm', b'\x89PNG', r"no PFM file .* got b'.x89PNG'"),
        ('a.pfm', b'Pf\n1 1\n0\n' + bytes(4), 'no PFM file of one'),
        ('a.pfm', b'Pf\n1 1\n1.e\n' + bytes(4), 'no PFM file of one'),
        ('a.pfm', b'Pf\n0 1\n-1\n', 'no PFM file of one'),
        ('a.pfm', b'Pf\n2 2\n-1\n' + bytes(12), 'need 16 bytes, got 12'),
        ('a.pfm', b'Pf\n2 2\n-1\n' + bytes(33), 'need 16 bytes, got 33'),
        (
            'a.pfm',
            b'Pf\n1 1\n-1\n' + np.float32(np.nan).tobytes(),
            r'1 values that are not a number \(NaN\)',
        ),
        (
            'a.pfm',
            b'Pf\n1 1\n-1\n' + np.float32(-3).tobytes(),
            'negative disparities alone',
        ),
        (
            'a.pfm',
            b'Pf\n2 1\n-1\n' + np.float32([-3, np.inf]).tobytes(),
            'negative disparities alone',
        ),
        ('a.png', b'nothing', 'cannot be read as a disparity map'),
        ('a.png', b'', 'cannot be read as a disparity map'),
        ('none.pfm', None, 'does not exist'),
    ],
)
def test_broken_maps(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_disparity(tmp_path / name)
    assert name in str(error.value)


def test_8_bit_map(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.ones((4, 4), np.uint8))
    with pytest.raises(UserError, match='one channel of 16 bits'):
        read_disparity(tmp_path / 'a.png')


def picture(path, seed, height=8, width=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)
    return pixels


def disparity_map(path, height=8, width=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    disparity = numbers(height, width)
    write = write_pfm if path.suffix == '.pfm' else write_png
    write(path, disparity)
    return disparity


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(('a', 'sub/b')):
        picture(tmp_path / f'left/{name}.png', seed)
        picture(tmp_path / f'right/{name}.png', 10 + seed)
        disparity_map(tmp_path / f'disparity/{name}.pfm')
    return tmp_path


def test_the_same_window_of_both(folder):
    """The host's crop cuts pictures and map alike."""
    pipeline = [*LOAD, dict(type='RandomCrop', crop_size=(4, 6)), PACK]
    dataset = StereoFolder(str(folder), pipeline=pipeline)
    assert len(dataset) == 2
    left = cv2.imread(str(folder / 'left/sub/b.png'))
    right = cv2.imread(str(folder / 'right/sub/b.png'))
    disparity = numbers(8, 10)
    sample = dataset[1]
    inputs = sample['inputs']
    assert inputs.shape == (3, 2, 4, 6) and inputs.dtype == torch.uint8
    places = [
        (y, x)
        for y in range(5)
        for x in range(5)
        if np.array_equal(
            left[y : y + 4, x : x + 6], inputs[:, 0].permute(1, 2, 0)
        )
    ]
    ((y, x),) = places
    assert np.array_equal(
        right[y : y + 4, x : x + 6], inputs[:, 1].permute(1, 2, 0)
    )
    assert np.array_equal(
        disparity[y : y + 4, x : x + 6],
        sample['data_samples'].gt_disparity.data[0],
    )


def test_kitti(tmp_path):
    """16-bit maps, and pictures without one."""
    for name in ('000_10', '000_11'):
        picture(tmp_path / f'image_2/{name}.png', 0)
        picture(tmp_path / f'image_3/{name}.png', 1)
    disparity = disparity_map(tmp_path / 'disp_occ_0/000_10.png')
    prefix = dict(left='image_2', right='image_3', disparity='disp_occ_0')
    dataset = StereoFolder(
        str(tmp_path), data_prefix=prefix, pipeline=[*LOAD, PACK]
    )
    assert len(dataset) == 1
    got = dataset[0]['data_samples'].gt_disparity.data[0].numpy()
    assert np.abs(got - disparity).max() <= 1 / 256
    del prefix['disparity']
    assert len(StereoFolder(str(tmp_path), data_prefix=prefix)) == 2


def test_what_is_missing(folder):
    (folder / 'right/a.png').unlink()
    with pytest.raises(UserError, match='1 of 2 left .* is named a in'):
        StereoFolder(str(folder))
    picture(folder / 'right/a.jpg', 0)  # whatever its ending
    assert len(StereoFolder(str(folder))) == 2
    for path in folder.rglob('*.pfm'):
        path.unlink()
    with pytest.raises(UserError, match='none of 2 pairs has a disparity'):
        StereoFolder(str(folder))
    with pytest.raises(UserError, match='no picture in'):
        StereoFolder(str(folder / 'left'))


def test_what_does_not_fit(folder):
    steps = Compose(LOAD)
    files = dict(
        img_path=str(folder / 'left/a.png'),
        right_path=str(folder / 'right/a.png'),
        disparity_path=str(folder / 'disparity/a.pfm'),
    )
    disparity_map(folder / 'disparity/a.pfm', height=9)
    with pytest.raises(UserError, match='10 x 9 pixels, its picture .* 10 x '):
        steps(dict(files))
    picture(folder / 'right/a.png', 0, width=11)
    with pytest.raises(UserError, match='10 x 8 pixels, .* is 11 x 8: expec'):
        steps(dict(files))
    for content in (b'x', b''):
        (folder / 'right/a.png').write_bytes(content)
        with pytest.raises(UserError, match=r'right/a\.png cannot be read'):
            steps(dict(files))
    (folder / 'right/a.png').unlink()
    with pytest.raises(UserError, match=r'right/a\.png does not exist'):
        steps(dict(files))


def test_links_and_hidden_files(folder):
    """A folder on another disk is read, what macOS leaves is not."""
    for name in ('left', 'right', 'disparity'):
        moved = folder / f'other_{name}'
        (folder / name / 'sub').rename(moved)
        (folder / name / 'sub').symlink_to(moved)
        (folder / name / '._a.png').write_bytes(b'no picture')
    found = StereoFolder(str(folder)).load_data_list()
    names = [item['img_path'] for item in found]
    expected = [str(folder / f'left/{name}.png') for name in ('a', 'sub/b')]
    assert names == expected


def scene_flow(root):
    """One pair of each kind, as the archives unpack."""
    names = (
        'flyingthings3d/{}/TRAIN/A/0000/{}/0006',
        'flyingthings3d/{}/TEST/B/0001/{}/0007',
        'driving/{}/15mm_focallength/scene_forwards/fast/{}/0001',
        'driving/{}/35mm_focallength/scene_backwards/slow/{}/0001',
        'monkaa/{}/a_rain_of_stones_x2/{}/0000',
    )
    for name in names:
        for side in ('left', 'right'):
            file = name.format('frames_cleanpass', side)
            picture(root / f'{file}.png', 0)
        disparity_map(root / f'{name.format("disparity", "left")}.pfm')
        disparity_map(root / f'{name.format("disparity", "right")}.pfm')


def as_psmnet_has_it(root):
    """The six folders of its README."""
    for part in ('flyingthings3d', 'driving', 'monkaa'):
        first = '' if part == 'flyingthings3d' else f'{part}_'
        maps = f'{first or "frames_"}disparity'
        (root / part / 'disparity').rename(root / maps)
        frames = root / part / 'frames_cleanpass'
        frames.rename(root / f'{first}frames_cleanpass')
        (root / part).rmdir()


def test_scene_flow_side_by_side(tmp_path):
    scene_flow(tmp_path)
    as_psmnet_has_it(tmp_path)
    found = []
    for split in ('train', 'test'):
        dataset = SceneFlowDataset(data_root=str(tmp_path), split=split)
        for item in dataset.load_data_list():
            left, right = item['img_path'], item['right_path']
            assert left.replace('/left/', '/right/') == right
            folder, *rest = left.removeprefix(f'{tmp_path}/').split('/')
            found.append(folder)
            maps = {
                'frames_cleanpass': 'frames_disparity',
                'driving_frames_cleanpass': 'driving_disparity',
                'monkaa_frames_cleanpass': 'monkaa_disparity',
            }[folder]
            expected = tmp_path.joinpath(maps, *rest).with_suffix('.pfm')
            assert item['disparity_path'] == str(expected)
    assert sorted(found) == [
        *['driving_frames_cleanpass'] * 2,
        *['frames_cleanpass'] * 2,
        'monkaa_frames_cleanpass',
    ]


def test_scene_flow(tmp_path):
    scene_flow(tmp_path)
    train = SceneFlowDataset(data_root=str(tmp_path))
    test = SceneFlowDataset(data_root=str(tmp_path), split='test')
    assert len(train) == 4 and len(test) == 1
    for item in [*train.load_data_list(), *test.load_data_list()]:
        left, right = item['img_path'], item['right_path']
        assert '/left/' in left and left.replace('left', 'right') == right
        expected = left.replace('frames_cleanpass', 'disparity')
        assert item['disparity_path'] == expected.replace('.png', '.pfm')
    assert 'TEST' in test.load_data_list()[0]['img_path']
    with pytest.raises(UserError, match='no left picture in .*finalpass'):
        SceneFlowDataset(data_root=str(tmp_path), rendering='finalpass')
    with pytest.raises(UserError, match="split must be .* got 'val'"):
        SceneFlowDataset(data_root=str(tmp_path), split='val')
    (tmp_path / 'monkaa/disparity/a_rain_of_stones_x2/left/0000.pfm').unlink()
    with pytest.raises(UserError, match='0000.png has no disparity map'):
        SceneFlowDataset(data_root=str(tmp_path))


def test_pairs_match(tmp_path):
    """Each pixel is where its disparity says, unless a nearer one is."""
    left, right, disparity = make_pair(np.random.RandomState(3), 64)
    y, x = np.mgrid[:64, :128]
    there = x - disparity.astype(int)
    inside = there >= 0
    same = (left[y, x] == right[y, np.maximum(there, 0)]).all(-1)
    hidden = np.zeros_like(inside)
    for row, column in zip(*np.nonzero(inside & ~same), strict=True):
        others = there[row] == there[row, column]
        nearest = disparity[row][others].max()
        hidden[row, column] = nearest > disparity[row, column]
    assert (same | hidden)[inside].mean() > 0.99
    assert same[inside].mean() > 0.7
    write_pairs(tmp_path / 'one', 3, 2, 1, 64)
    write_pairs(tmp_path / 'two', 3, 2, 1, 64)
    files = sorted(p for p in (tmp_path / 'one').rglob('*') if p.is_file())
    assert len(files) == 9
    for path in files:
        other = tmp_path / 'two' / path.relative_to(tmp_path / 'one')
        assert path.read_bytes() == other.read_bytes()
    with pytest.raises(ValueError, match='pairs of 32 pixels'):
        write_pairs(tmp_path, size=32)
