# Copyright (c) mmseg_attn contributors.
"""tools/test.py, run in this process."""

import errno
import json
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_training import CLASSES, ROOT, tiny_config, write_dataset

from mmseg_attn.engine.runner import build_runner


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config file, a checkpoint and the folder of the data."""
    folder = tmp_path_factory.mktemp('trained')
    data = write_dataset(folder / 'data', pictures=4)
    # Each validation picture also mirrored.
    for kind in ('images', 'masks'):
        for path in sorted((data / kind / 'val').iterdir()):
            picture = cv2.imread(str(path), -1)
            mirrored = path.with_name(f'{path.stem}m.png')
            cv2.imwrite(str(mirrored), np.ascontiguousarray(picture[:, ::-1]))
    cfg = tiny_config(data, folder / 'run', **{'train_cfg.max_iters': 30})
    cfg.train_cfg.val_interval = 100
    cfg.default_hooks.checkpoint.interval = 30
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    build_runner(cfg).train()
    cfg.dump(str(folder / 'cfg.py'))
    return folder / 'cfg.py', folder / 'run' / 'iter_30.pth', data


@pytest.fixture
def tool(trained, tmp_path, monkeypatch):
    """Call the tool and get its exit code and the metrics it wrote."""

    def call(*options, config=trained[0], checkpoint=trained[1]):
        work_dir = tmp_path / 'test_run'
        shutil.rmtree(work_dir, ignore_errors=True)
        arguments = ['test.py', config, checkpoint, '--work-dir', work_dir]
        monkeypatch.setattr(
            sys, 'argv', [str(item) for item in (*arguments, *options)]
        )
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / 'tools/test.py'), run_name='__main__')
        reports = list(work_dir.glob('*/*.json'))
        metrics = json.loads(reports[0].read_text()) if reports else None
        return end.value.code, metrics

    return call


def mean_iou(predictions, masks):
    """The mean over classes of intersection over union, by definition."""
    found, truth = (
        np.stack([cv2.imread(str(path), -1) for path in sorted(folder)])
        for folder in (predictions.iterdir(), masks.iterdir())
    )
    ious = []
    for label in range(len(CLASSES)):
        union = ((found == label) | (truth == label)).sum()
        ious.append(((found == label) & (truth == label)).sum() / union)
    return 100 * np.nanmean(ious)


def read(folder):
    return {path.stem: cv2.imread(str(path), -1) for path in folder.iterdir()}


def mirror_errors(folder):
    """Number of pixels at which a mirrored picture is told otherwise."""
    masks = read(folder)
    return sum(
        (masks[name] != masks[f'{name}m'][:, ::-1]).sum()
        for name in masks
        if not name.endswith('m')
    )


def test_masks_and_metric_agree(tool, trained, tmp_path):
    code, metrics = tool('--out', tmp_path / 'masks')
    assert code is None
    expected = mean_iou(tmp_path / 'masks', trained[2] / 'masks' / 'val')
    assert metrics['mIoU'] == pytest.approx(expected, abs=0.01)
    assert len(read(tmp_path / 'masks')) == 8


@pytest.mark.parametrize(
    'metric', ['mmseg_attn.LandCoverMetric', 'mmseg_attn.GroupIoUMetric']
)
def test_masks_with_metrics_of_our_own(tool, trained, tmp_path, metric):
    changed = Config.fromfile(str(trained[0]))
    changed.test_evaluator = dict(type=metric)
    changed.dump(str(tmp_path / 'changed.py'))
    config = tmp_path / 'changed.py'
    code, metrics = tool('--out', tmp_path / 'masks', config=config)
    expected = mean_iou(tmp_path / 'masks', trained[2] / 'masks' / 'val')
    assert code is None
    assert metrics['mIoU'] == pytest.approx(expected, abs=0.01)


def test_masks_go_to_a_folder(tool, tmp_path):
    code, _ = tool('--out', tmp_path / 'x.png')
    assert code.endswith('x.png must be a folder, not a file.')


def test_metric_that_saves_no_masks(tool, trained, tmp_path):
    changed = Config.fromfile(str(trained[0]))
    changed.test_evaluator = [dict(type='DumpResults', out_file_path='a.pkl')]
    changed.dump(str(tmp_path / 'changed.py'))
    config = tmp_path / 'changed.py'
    code, _ = tool('--out', tmp_path / 'masks', config=config)
    assert code.startswith('Error: --out needs') and 'DumpResults' in code


@pytest.mark.parametrize('options', [(), ('--tta',)])
def test_a_test_set_without_masks(tool, trained, tmp_path, options):
    """The same predictions are saved, and there is no metric."""
    tool('--out', tmp_path / 'with', *options)
    changed = Config.fromfile(str(trained[0]))
    del changed.test_dataloader.dataset.data_prefix['seg_map_path']
    changed.dump(str(tmp_path / 'changed.py'))
    config = tmp_path / 'changed.py'
    code, metrics = tool('--out', tmp_path / 'out', *options, config=config)
    assert code is None and 'mIoU' not in metrics
    expected, found = read(tmp_path / 'with'), read(tmp_path / 'out')
    assert expected.keys() == found.keys() and len(found) == 8
    assert all((expected[name] == found[name]).all() for name in found)
    code, _ = tool(*options, config=config)
    assert 'save predictions without a metric: test --out' in code


def test_flip_and_scales(tool, tmp_path):
    """With flips, a mirrored picture gets the mirrored prediction."""
    tool('--out', tmp_path / 'plain')
    code, metrics = tool('--tta', '--out', tmp_path / 'tta')
    assert code is None and metrics['mIoU'] > 0
    assert mirror_errors(tmp_path / 'plain') > 0
    assert mirror_errors(tmp_path / 'tta') == 0


def test_a_full_disk_leaves_no_half_masks(tool, tmp_path, monkeypatch):
    save, saved = Image.Image.save, []

    def full(self, path, *args, **kwargs):
        save(self, path, *args, **kwargs)
        saved.append(path)
        if len(saved) == 2:
            Path(path).write_bytes(Path(path).read_bytes()[:20])
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))

    monkeypatch.setattr(Image.Image, 'save', full)
    code, _ = tool('--out', tmp_path / 'masks')
    assert 'No space left on device' in code and '\n' not in code
    assert len(saved) == 2
    assert not list((tmp_path / 'masks').iterdir())
    monkeypatch.undo()


def test_sliding_windows(tool, trained, tmp_path):
    """Compared with windows cut and averaged here."""
    code, _ = tool('--slide', '32', '16', '--out', tmp_path / 'slide')
    assert code is None
    cfg = Config.fromfile(str(trained[0]))
    cfg.load_from, cfg.work_dir = str(trained[1]), str(tmp_path / 'run')
    # Runners of one name that start in the same second share a visualizer.
    cfg.experiment_name = 'windows'
    model = build_runner(cfg, train=False).model.eval()
    for name, found in read(tmp_path / 'slide').items():
        path = trained[2] / 'images' / 'val' / f'{name}.png'
        picture = cv2.imread(str(path))[:, :, ::-1].transpose(2, 0, 1)
        picture = (torch.tensor(picture.copy()).float() - 110) / 50
        total = torch.zeros(3, 48, 48)
        count = torch.zeros(48, 48)
        for y in (0, 16):
            for x in (0, 16):
                place = ..., slice(y, y + 32), slice(x, x + 32)
                meta = [dict(img_shape=(32, 32))]
                with torch.no_grad():
                    logits = model.encode_decode(picture[place][None], meta)
                total[place] += logits[0]
                count[place] += 1
        expected = (total / count).argmax(0).numpy()
        assert (expected != found).mean() < 0.001


def test_windows_of_large_pictures_stream(tool, tmp_path, monkeypatch):
    words = '--slide', '32', '16', '--out'
    code, expected = tool(*words, tmp_path / 'whole')
    assert code is None
    monkeypatch.setattr('mmseg_attn.apis.streamed_test.LARGE', 0)
    # The host's way, which would hold all logits.
    monkeypatch.setattr('mmseg.models.EncoderDecoder.slide_inference', None)
    code, metrics = tool(*words, tmp_path / 'streamed')
    assert code is None and metrics['mIoU'] == expected['mIoU']
    masks = read(tmp_path / 'whole')
    assert len(masks) == 8
    for name, found in read(tmp_path / 'streamed').items():
        np.testing.assert_array_equal(found, masks[name])


def test_a_config_that_resumes_is_tested_all_the_same(tool, trained, tmp_path):
    """Of weights alone there is nothing to resume."""
    weights = torch.load(trained[1], weights_only=False)['state_dict']
    torch.save(weights, tmp_path / 'weights.pth')
    _, expected = tool()
    code, metrics = tool(
        *('--cfg-options', 'resume=True'), checkpoint=tmp_path / 'weights.pth'
    )
    assert code is None
    assert metrics['mIoU'] == expected['mIoU']


def test_painted_pictures(tool, trained, tmp_path):
    code, _ = tool('--show-dir', tmp_path / 'painted')
    assert code is None
    painted = list((tmp_path / 'painted').rglob('*.png'))
    assert len(painted) == 8


def test_refusals(tool, trained, tmp_path):
    config, checkpoint, data = trained
    half = tmp_path / 'half.pth'
    half.write_bytes(checkpoint.read_bytes()[:20000])
    cases = {
        'is cut off': tool(checkpoint=half),
        'does not exist. Did you mean half.pth': tool(
            checkpoint=tmp_path / 'hafl.pth'
        ),
        'of another shape (first: decode_head.conv_seg': tool(
            '--cfg-options', 'model.decode_head.num_classes=5'
        ),
        'could replace pictures or masks': tool(
            '--out', data / 'masks' / 'val'
        ),
        'No config file nowhere.py, and none of': tool(config='nowhere.py'),
        'data_prefix.img_path of test_dataloader does not exist': tool(
            '--cfg-options', 'test_dataloader.dataset.data_root=nowhere'
        ),
    }
    for message, (code, metrics) in cases.items():
        assert metrics is None
        assert code.startswith('Error: ') and message in code, code
        assert '\n' not in code
