# Copyright (c) mmseg_attn contributors.
"""A pair from training to disparities, depth and pictures."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from in_process import run_script
from mmengine.config import Config

from mmseg_attn.__main__ import main
from mmseg_attn.engine.runner import build_runner
from mmseg_attn.errors import UserError
from mmseg_attn.inference.calibration import Calibration, read_calibration
from mmseg_attn.pictures.disparity_files import read_disparity, write_pfm
from mmseg_attn.visualization.disparity import draw_disparity

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/psmnet-ea-volume_1xb2-400_demo-stereo-96x192.py'
# Of the upper and of the lower half of the pair.
NEAR, FAR = 9, 3


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A small network that has learned one pair of known disparities."""
    folder = tmp_path_factory.mktemp('stereo')
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (32, 80, 3), dtype=np.uint8)
    scene = coarse.repeat(2, 0).repeat(2, 1)
    left, right = scene[:, 16:144], scene[:, 16:144].copy()
    disparity = np.full((64, 128), FAR, np.float32)
    disparity[:32] = NEAR
    for rows, shift in ((slice(0, 32), NEAR), (slice(32, 64), FAR)):
        right[rows] = scene[rows, 16 + shift : 144 + shift]
    for split in ('train', 'val'):
        for name, image in (('left', left), ('right', right)):
            (folder / split / name).mkdir(parents=True)
            cv2.imwrite(str(folder / split / name / 'a.png'), image)
        (folder / split / 'disparity').mkdir()
        write_pfm(folder / split / 'disparity/a.pfm', disparity)
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(
        {
            'work_dir': str(folder / 'work'),
            'model.max_disparity': 16,
            'train_dataloader.batch_size': 1,
            'train_dataloader.dataset.data_root': str(folder / 'train'),
            'val_dataloader.dataset.data_root': str(folder / 'val'),
            'test_dataloader.dataset.data_root': str(folder / 'val'),
            'train_cfg.max_iters': 36,
            'train_cfg.val_interval': 36,
            'default_hooks.checkpoint.interval': 36,
            'randomness.seed': 0,
        }
    )
    runner = build_runner(cfg)
    runner.train()
    history = runner.message_hub.get_scalar('train/loss_disparity').data[0]
    metrics = {
        key: runner.message_hub.get_scalar(f'val/{key}').current()
        for key in ('EPE', '>3px', 'D1')
    }
    cfg.dump(folder / 'config.py')
    return folder, history, metrics


@pytest.mark.slow
def test_known_disparities_are_recovered(trained):
    _, history, metrics = trained
    assert np.mean(history[-5:]) < np.mean(history[:5]) / 4
    assert metrics['EPE'] < 1
    assert metrics['>3px'] < 5


def predict(folder, *options, left='val/left'):
    return main(
        [
            *('predict', str(folder / 'config.py')),
            *(str(folder / 'work/iter_36.pth'), str(folder / left)),
            *('--device', 'cpu', *map(str, options)),
        ]
    )


@pytest.mark.slow
def test_predict(trained, capsys):
    """Disparities in two formats, depth, and a picture with a scale."""
    folder, _, metrics = trained
    (folder / 'calib.txt').write_text(
        'cam0=[100 0 64; 0 100 32; 0 0 1]\ndoffs=1.5\nbaseline=20\n'
    )
    options = ('--right', folder / 'val/right', '--out', folder / 'out')
    options += ('--calibration', folder / 'calib.txt')
    assert predict(folder, *options) == 0
    found = read_disparity(folder / 'out/pfm/a.pfm')
    truth = read_disparity(folder / 'val/disparity/a.pfm')
    assert np.abs(found - truth).mean() == pytest.approx(
        metrics['EPE'], abs=1e-4
    )
    steps = read_disparity(folder / 'out/png/a.png')
    assert np.abs(steps - found).max() <= 1 / 256
    depth = read_disparity(folder / 'out/depth/a.pfm')
    assert np.allclose(depth, 100 * 20 / (found + 1.5), rtol=1e-5)
    shown = cv2.imread(str(folder / 'out/overlay/a.jpg'))
    assert shown.shape[0] == 120 and shown.shape[1] > 128
    capsys.readouterr()
    assert predict(folder, *options) == 0
    assert '1 were done before' in capsys.readouterr().out
    # Of other right pictures the results are others.
    shutil.copytree(folder / 'val/right', folder / 'val/other')
    other = ('--right', folder / 'val/other', *options[2:])
    with pytest.raises(SystemExit, match=r'other settings \(right\)'):
        predict(folder, *other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ((), 'name the right picture'),
        (('--right', 'none.png'), 'none.png does not exist: expected a pic'),
        (('--right', 'val/left'), 'is the left and the right picture'),
        (('--right', 'work'), r'val/left/a\.png has no right picture'),
        (('--right', 'val/right', '--slide', '64'), 'only segmentors'),
        (('--right', 'val/right', '--classes', 'a'), 'has no classes'),
        (
            ('--right', 'val/right', '--calibration', 'config.py'),
            'expected lines focal=PIXELS',
        ),
        (('--right', 'val/right', '--save', 'depth'), 'gives overlay, pfm'),
    ],
)
def test_bad_options(trained, monkeypatch, options, message):
    monkeypatch.chdir(trained[0])
    with pytest.raises(SystemExit, match=message):
        predict(trained[0], *options, '--out', 'bad')
    assert not (trained[0] / 'bad').exists()


@pytest.mark.slow
def test_no_videos(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    Path('a.mp4').touch()
    with pytest.raises(SystemExit, match=r'a\.mp4 is a video: a stereo'):
        predict(trained[0], '--right', 'a.mp4', left='a.mp4')


@pytest.mark.slow
def test_a_pair_of_two_sizes(trained, capsys):
    """It is named, and the others are done."""
    folder = trained[0]
    for side in ('left', 'right'):
        # Elsewhere, as on another disk.
        (folder / 'elsewhere' / side).mkdir(parents=True)
        (folder / 'two' / side).mkdir(parents=True)
        (folder / 'two' / side / 'sub').symlink_to(folder / 'elsewhere' / side)
        image = cv2.imread(str(folder / f'val/{side}/a.png'))
        cv2.imwrite(str(folder / f'two/{side}/a.png'), image)
        ending = 'bmp' if side == 'right' else 'png'
        cv2.imwrite(str(folder / f'two/{side}/sub/a.{ending}'), image)
        cut = image[:60] if side == 'right' else image
        cv2.imwrite(str(folder / f'two/{side}/b.png'), cut)
    right = ('--right', folder / 'two/right')
    out = ('--out', folder / 'sizes', '--no-legend')
    assert predict(folder, *right, *out, left='two/left') == 1
    done = capsys.readouterr()
    message = ' '.join((done.out + done.err).split())
    assert 'left/b.png is 128 x 64 pixels' in message
    assert 'right/b.png is 128 x 60: expected a rectified pair' in message
    assert '2 of 3 inputs done' in message
    shown = cv2.imread(str(folder / 'sizes/overlay/a.jpg'))
    assert shown.shape == (64, 128, 3)


@pytest.mark.slow
def test_tools_test(trained, monkeypatch):
    """It measures what the training measured, and draws."""
    folder, _, metrics = trained
    monkeypatch.chdir(folder)
    done = run_script(
        *(ROOT / 'tools/test.py', 'config.py', 'work/iter_36.pth'),
        *('--work-dir', 'test', '--show-dir', 'shown'),
    )
    text = done.stdout + done.stderr
    assert done.returncode == 0, text[-2000:]
    assert f'EPE: {metrics["EPE"]:.4f}' in text
    (drawn,) = (folder / 'shown').rglob('*.png')
    # Left picture, truth, prediction and scale.
    assert cv2.imread(str(drawn)).shape == (120, 3 * 128 + 2 * 4 + 88, 3)


@pytest.mark.parametrize('command', ['labels', 'worst'])
def test_commands_for_classes(command, tmp_path):
    arguments = ['none.pth', '--out', str(tmp_path / 'out')]
    with pytest.raises(SystemExit, match='is of a stereo network'):
        main([command, str(CONFIG), *arguments * (command == 'worst')])


def test_calibration(tmp_path):
    path = tmp_path / 'calib.txt'
    path.write_text('focal = 994.978\nbaseline = 193.001\ndoffs = -31\n')
    found = read_calibration(path)
    assert found == Calibration(994.978, 193.001, -31.0)
    depth = found.depth(np.array([[31.0, 30.0, 81.0]]))
    assert np.isinf(depth[0, :2]).all()
    assert depth[0, 2] == pytest.approx(994.978 * 193.001 / 50)
    with pytest.raises(UserError, match='cannot be read'):
        read_calibration(tmp_path / 'none.txt')


def test_calibration_of_middlebury(tmp_path):
    """A whole calib.txt; its size is that of the pictures."""
    path = tmp_path / 'calib.txt'
    path.write_bytes(
        b'\xef\xbb\xbfcam0=[3979.911 0 1244.772; 0 3979.911 1019.507; 0 0 1]'
        b'\r\ncam1=[3979.911 0 1369.115; 0 3979.911 1019.507; 0 0 1]\r\n'
        b'doffs=124.343\r\nbaseline=193.001\r\nwidth=2964\r\nheight=2000\r\n'
    )
    found = read_calibration(path)
    assert found == Calibration(3979.911, 193.001, 124.343, 2964, 2000)
    depth = found.depth(np.full((2000, 2964), 75.657, np.float32))
    assert depth[0, 0] == pytest.approx(3979.911 * 193.001 / 200)
    with pytest.raises(UserError, match='of 2964 x 2000 pixels, this one is '):
        found.depth(np.ones((500, 741), np.float32))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('focal=0\nbaseline=2', 'both positive'),
        ('baseline=2', 'both positive'),
        ('focal=1.2.3\nbaseline=2', "the line 'focal=1.2.3', expected a num"),
        ('focal=1\nbaseline=inf', "the line 'baseline=inf', expected"),
        ('focal=1\nbaseline=2\ndoffs=31,5', "the line 'doffs=31,5', expect"),
        ('cam0=[f 0 1; 0 f 1]\nbaseline=2', r"the line 'cam0=\[f 0 1; 0 f"),
    ],
)
def test_calibration_that_is_none(tmp_path, text, message):
    path = tmp_path / 'calib.txt'
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_calibration(path)


@pytest.mark.slow
def test_calibration_of_other_pictures(trained, capsys):
    """Told; disparities that were asked for alone need none."""
    folder = trained[0]
    path = folder / 'large.txt'
    path.write_text('focal=100\nbaseline=20\nwidth=256\nheight=128')
    options = ('--right', folder / 'val/right', '--calibration', path)
    assert predict(folder, *options, '--out', folder / 'large') == 1
    message = ' '.join(capsys.readouterr().err.split())
    assert (
        'val/left/a.png: the calibration is for pictures of 256 x' in message
    )
    path.write_text('focal=100\nbaseline=20\nwidth=128\nheight=64')
    out = ('--out', folder / 'large', '--overwrite')
    assert predict(folder, *options, *out) == 0
    assert (folder / 'large/depth/a.pfm').is_file()


def test_colours():
    """One scale for both maps; unknown is black."""
    truth = np.linspace(0, 50, 128 * 130, dtype='f4').reshape(130, 128)
    truth[0, 0] = np.inf
    shown = draw_disparity(truth, truth, scale=False)
    assert shown.shape == (130, 2 * 128 + 4, 3)
    assert not shown[0, 0].any()
    assert np.array_equal(shown[:, :128], shown[:, 132:])
    with_scale = draw_disparity(truth)
    assert np.array_equal(with_scale[:, :128], shown[:, :128])
    assert len(np.unique(with_scale[:, 128:].reshape(-1, 3), axis=0)) > 100
    # As large as it may be, and nothing known at all.
    assert draw_disparity(np.full((8, 8), np.inf, 'f4')).shape[0] == 120
