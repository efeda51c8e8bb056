# Copyright (c) mmseg_attn contributors.
"""A comparison on CamVid: its data, and configs that differ in the method."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.models import EncoderDecoder
from PIL import Image

from mmseg_attn.__main__ import main
from mmseg_attn.configs import load_config
from mmseg_attn.datasets import CamVidDataset
from mmseg_attn.errors import UserError
from mmseg_attn.trials import camvid, worker
from mmseg_attn.trials.comparison import methods
from mmseg_attn.trials.trial import Setting, prepare_data, trial_config

CLASSES = CamVidDataset.METAINFO['classes']
REAL = os.environ.get('MMSEG_ATTN_REAL_DATA')
NAMES = {'train': ['a', 'b'], 'val': ['c']}


def write(root, ending='.jpg', labels='masks', size=(24, 32)):
    """Three pictures: each mask is class 3 but for one row of each other."""
    for split, names in NAMES.items():
        for name in names:
            picture = np.full((*size, 3), 90, np.uint8)
            mask = np.full(size, 3, np.uint8)
            for value in (*range(11), 255):
                mask[value % 12] = value
            for folder, content, end in (
                ('images', picture, ending),
                (labels, mask, '.png'),
            ):
                path = root / folder / split / f'{name}{end}'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)


@pytest.mark.parametrize(
    ('ending', 'labels'), [('.jpg', 'masks'), ('.png', 'annotations')]
)
def test_either_layout_becomes_the_data(tmp_path, ending, labels):
    write(tmp_path / 'camvid', ending, labels)
    setting = Setting(camvid=tmp_path / 'camvid')
    data = prepare_data(tmp_path / 'data', setting, 0)
    assert data.notes == [
        'CamVid: 2 pictures to train on, 1 to validate with.'
    ]
    # Class 3 has 13 of 23 rows that count, and the others one each.
    assert data.floor['mIoU Road'] == pytest.approx(100 * 13 / 23)
    assert data.floor['mIoU'] == pytest.approx(100 * 13 / 23 / 11)
    assert data.size == '240x320'
    ((picture, mask),) = data.validation_files()
    assert (picture.name, mask.name) == (f'c{ending}', 'c.png')
    assert (np.asarray(Image.open(mask))[11] == 3).all()
    cfg = trial_config('eanet', data, tmp_path / 'work', seed=4, iters=6)
    assert cfg.val_dataloader is None and cfg.randomness.seed == 4
    about = json.loads((data.folder / 'dataset.json').read_text())
    assert cfg.test_dataloader.dataset.metainfo == {'groups': about['groups']}
    prefix = cfg.test_dataloader.dataset.data_prefix
    assert prefix.img_path == 'images/val'


def test_incomplete_data_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / 'masks/train/b.png').unlink()
    with pytest.raises(UserError, match=r'got 2 pictures, 1 of them without'):
        camvid.prepare_camvid(tmp_path, tmp_path / 'data')
    with pytest.raises(UserError, match='expected images/train and images/va'):
        camvid.prepare_camvid(tmp_path / 'none', tmp_path / 'other')
    with pytest.raises(UserError, match='--camvid takes no --images'):
        Setting(images=tmp_path, masks=tmp_path, camvid=tmp_path)
    with pytest.raises(UserError, match='got --full r18, of --camvid there'):
        Setting(camvid=tmp_path, full='r18')


@pytest.mark.parametrize('pattern', [camvid.SMALL, camvid.FULL])
def test_configs_differ_in_the_method(pattern):
    found = methods(pattern)
    assert found[0] == 'fcn' and {'ccnet-r1', 'ccnet-r2'} < set(found)
    configs = {
        method: load_config(pattern.format(method)).to_dict()
        for method in found
    }
    heads = {}
    for method, config in configs.items():
        heads[method] = config['model'].pop('decode_head')
        # The dense prediction of SANet is its auxiliary one.
        auxiliary = config['model'].pop('auxiliary_head')
        assert (auxiliary is None) == (method == 'sanet')
    for method, config in configs.items():
        assert config == configs['fcn'], method
        assert heads[method]['num_classes'] == 11
        assert heads[method]['channels'] == heads['fcn']['channels']
        weight = heads[method]['loss_decode'].get('class_weight')
        assert weight == heads['fcn']['loss_decode'].get('class_weight')
    assert len({str(head) for head in heads.values()}) == len(found)


@pytest.mark.skipif(not REAL, reason='MMSEG_ATTN_REAL_DATA is not set')
def test_class_weights_are_those_of_the_training_masks():
    """1 / sqrt(share), of mean 1 over the pixels."""
    counts = np.zeros(256, np.int64)
    for path in Path(REAL, 'camvid/masks/train').iterdir():
        counts += np.bincount(np.asarray(Image.open(path)).ravel(), None, 256)
    share = counts[:11] / counts[:11].sum()
    weight = share**-0.5
    weight /= (weight * share).sum()
    config = load_config(camvid.SMALL.format('fcn'))
    np.testing.assert_allclose(config.class_weight, weight, atol=0.006)


@pytest.mark.slow
def test_a_comparison_runs(tmp_path, capfd):
    write(tmp_path / 'camvid', size=(360, 480))
    work = tmp_path / 'work'
    main(
        [
            *('compare', '--camvid', f'{tmp_path / "camvid"}'),
            *('--work-dir', f'{work}', '--methods', 'fcn', 'ccnet-r2'),
            *('--iters', '2', '--seeds', '1', '--device', 'cpu'),
        ]
    )
    text = (work / 'comparison.md').read_text()
    assert all(f'| {name} |' in text for name in CLASSES)
    assert (work / 'differences.png').is_file()


@pytest.mark.slow
def test_the_average_is_measured(tmp_path, monkeypatch):
    """Of weights that jump, the last ones are far from their average."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    write(tmp_path / 'camvid', size=(360, 480))
    data = prepare_data(
        tmp_path / 'data', Setting(camvid=tmp_path / 'camvid'), 0
    )
    cfg = trial_config('fcn', data, tmp_path / 'work', seed=0, iters=3)
    cfg.optim_wrapper.optimizer.lr = 1.0
    cfg.param_scheduler = None
    cfg.train_dataloader.batch_size = 2
    cfg.dump(tmp_path / 'config.py')
    used = []

    def predict(self, *args, **kwargs):
        used.append(self.backbone.stem[0].weight.clone())
        return plain(self, *args, **kwargs)

    plain = EncoderDecoder.predict
    monkeypatch.setattr(EncoderDecoder, 'predict', predict)
    argv = ['worker', str(tmp_path / 'config.py'), str(os.dup(1))]
    monkeypatch.setattr('sys.argv', argv)
    worker.main()
    kept = torch.load(tmp_path / 'work/iter_3.pth', weights_only=False)
    average = kept['state_dict']['backbone.stem.0.weight']
    last = kept['ema_state_dict']['module.backbone.stem.0.weight']
    assert not torch.equal(average, last)
    (used,) = used
    assert torch.equal(used, average)
