# Copyright (c) mmseg_attn contributors.
"""Whole models: a step of ours and the host's, and a short training."""

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')
cv2 = pytest.importorskip('cv2')
np = pytest.importorskip('numpy')
TOOLS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmark'

if not TOOLS.is_dir():
    pytest.skip('not in a checkout', allow_module_level=True)

# Its modules find each other beside the script.
sys.path.append(str(TOOLS))

CONFIG = 'ccnet_r50-d8_4xb2-40k_cityscapes-512x1024'
SMALL = ['--configs', CONFIG, '--sizes', '2x17x17', '--repeat', '2']


@pytest.fixture
def pictures(tmp_path):
    """Dark and light squares, the light ones of class 1."""
    random = np.random.default_rng(0)
    for kind in ('images', 'masks'):
        (tmp_path / kind / 'train').mkdir(parents=True)
    for i in range(3):
        mask = random.integers(0, 2, (4, 5), dtype=np.uint8)
        picture = np.repeat(mask[..., None] * 200, 3, -1)
        cv2.imwrite(str(tmp_path / f'images/train/{i}.jpg'), picture)
        cv2.imwrite(str(tmp_path / f'masks/train/{i}.png'), mask)
    return tmp_path


def test_a_step_of_both(tmp_path, monkeypatch):
    """Without compiled operators; the attention has a weight."""
    import models

    pairs = []
    plain = models.time_in_turns
    monkeypatch.setattr(
        models,
        'time_in_turns',
        lambda pair, *args: pairs.append(pair) or plain(pair, *args),
    )
    options = [*SMALL, '--amp', '--channels-last', '--budget', '0.1']
    models.main([*options, '--out', str(tmp_path)])
    data = json.loads((tmp_path / 'models.json').read_text())
    assert data['machine']['autocast'] == 'bfloat16'
    (row,) = data['models'][CONFIG]
    assert set(row['peak_bytes']) == set(row['seconds']) == {'ours', 'host'}
    assert (
        f'| {CONFIG} | 2x17x17 | NHWC |'
        in (tmp_path / 'models.md').read_text()
    )
    ((ours, host),) = pairs
    for c, scope in ((ours, 'mmseg_attn.'), (host, 'mmseg.')):
        head = c.function.model.decode_head
        assert type(head).__module__.startswith(scope)
        gammas = [
            p for n, p in head.named_parameters() if n.endswith('gamma.scale')
        ]
        assert gammas and all(p == torch.tensor(0.7) for p in gammas)
        assert c.graphs == {}


def test_both_are_trained_alike(pictures, tmp_path, capsys):
    import models

    options = [*SMALL, '--train', '2', '--data', str(pictures)]
    models.main([*options, '--out', str(tmp_path)])
    data = json.loads((tmp_path / 'training.json').read_text())
    (row,) = data['models'][CONFIG]
    ours, host = (row['trained'][name]['losses'] for name in ('ours', 'host'))
    assert len(ours) == 2 and ours == pytest.approx(host, rel=1e-2)
    with pytest.raises(SystemExit):
        models.parse_args(['--train', '3'])
    assert 'need each other' in capsys.readouterr().err


def test_a_training_learns(pictures):
    """A convolution from pictures to classes, in three tenths."""
    import training

    images, masks = training.load(pictures, 8, 10)
    assert images.shape == (3, 3, 8, 10) and masks.shape == (3, 1, 8, 10)
    assert masks.unique().tolist() == [0, 1]
    torch.manual_seed(0)
    head = torch.nn.Conv2d(3, 2, 1)

    class Losses(torch.nn.Module):
        labels = None

        def __init__(self):
            super().__init__()
            self.head = head

        def forward(self, x):
            logits = self.head(x)
            return torch.nn.functional.cross_entropy(logits, self.labels[:, 0])

    found = training.train(Losses(), images, masks, batch=2, steps=90)
    assert len(found['losses']) == 10
    assert found['losses'][-1] < 0.5 * found['losses'][0]
    with pytest.raises(SystemExit, match='no pictures in'):
        training.load(pictures / 'none', 8, 10)
