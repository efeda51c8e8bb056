# Copyright (c) mmseg_attn contributors.
"""`predict` of a detector against mmdet's own inference."""

import json
import os
import sys
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from PIL import Image

from mmseg_attn import hosts
from mmseg_attn.__main__ import main
from mmseg_attn.apis import load_model, make_predictor
from mmseg_attn.apis.predictors import Detector
from mmseg_attn.datasets.scenes import make_scenes, render
from mmseg_attn.engine.runner import build_runner
from mmseg_attn.errors import UserError, run_command
from mmseg_attn.visualization.instances import InstancePainter

CONFIG = Path(__file__).parents[2] / (
    'configs/demo/mask-rcnn_r18_fpn_1xb4-1k_demo-instances-96x96.py'
)


def test_without_compiled_operators(tmp_path, monkeypatch):
    """Seen in an environment without, and made here where there are some."""
    find = hosts.importlib.util.find_spec
    monkeypatch.setattr(
        hosts.importlib.util,
        'find_spec',
        lambda name, *args: name != 'mmcv._ext' and find(name, *args) or None,
    )
    with pytest.raises(SystemExit, match='MMCV_WITH_OPS=1 pip install'):
        main(['predict', str(CONFIG), 'none.pth', str(tmp_path)])
    with pytest.raises(UserError, match='no compiled operators'):
        build_runner(Config.fromfile(CONFIG))


def test_without_mmdet(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmdet', None)
    message = r'MMDetection is not installed.*mmseg_attn\[\w+,\w+-det\]'
    with pytest.raises(SystemExit, match=message):
        main(['predict', str(CONFIG), 'none.pth', str(tmp_path)])
    with pytest.raises(SystemExit, match=message):
        run_command(lambda: Config.fromfile(CONFIG))


def test_operators_of_another_torch(tmp_path, monkeypatch):
    """A file that is there, but cannot be loaded."""
    (tmp_path / '_ext.so').write_bytes(b'no library')
    monkeypatch.setattr(mmcv, '__path__', [str(tmp_path)])
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    with pytest.raises(UserError, match=r'do not load \(.*\), which det'):
        build_runner(Config.fromfile(CONFIG))


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """Checkpoint of random weights and two pictures, one without colours."""
    pytest.importorskip('mmcv._ext', reason='mmcv has no compiled operators')
    folder = tmp_path_factory.mktemp('detector')
    cfg = Config.fromfile(CONFIG)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    # Scores of more than one class, and masks that are not empty.
    with torch.no_grad():
        model.roi_head.bbox_head.fc_cls.weight.normal_(0, 0.5)
        model.roi_head.mask_head.conv_logits.weight.normal_(0, 0.5)
    torch.save({'state_dict': model.state_dict()}, folder / 'weights.pth')
    (folder / 'in').mkdir()
    for index, scene in enumerate(make_scenes(3, 4)):
        picture, _ = render(scene)
        name = f'{index}.png'
        if index < 2:
            cv2.imwrite(str(folder / 'in' / name), picture[..., ::-1])
    yield folder
    init_default_scope('mmseg')


def predict(detector, out, *options):
    return main(
        [
            'predict',
            str(CONFIG),
            str(detector / 'weights.pth'),
            str(detector / 'in'),
            *('--out', str(out), '--device', 'cpu'),
            *options,
        ]
    )


def host_results(detector, path):
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(
        str(CONFIG), str(detector / 'weights.pth'), device='cpu'
    )
    return inference_detector(model, str(path)).pred_instances


def test_instances_are_those_of_the_host(detector, tmp_path):
    assert predict(detector, tmp_path, '--score', '0.1') == 0
    names = sorted(os.listdir(detector / 'in'))
    classes = Config.fromfile(CONFIG).metainfo.classes
    codes = pytest.importorskip('pycocotools.mask')
    total = 0
    for name in names:
        expected = host_results(detector, detector / 'in' / name)
        expected = expected[expected.scores >= 0.1]
        path = tmp_path / 'instances' / name.replace('.png', '.json')
        found = json.loads(path.read_text(encoding='utf-8'))
        assert len(found) == len(expected)
        scores = [item['score'] for item in found]
        assert scores == sorted(scores, reverse=True)
        order = expected.scores.argsort(descending=True)
        for item, index in zip(found, order.tolist(), strict=True):
            x1, y1, x2, y2 = expected.bboxes[index].tolist()
            np.testing.assert_allclose(
                item['bbox'], [x1, y1, x2 - x1, y2 - y1], atol=0.006
            )
            assert item['score'] == pytest.approx(
                float(expected.scores[index]), abs=6e-5
            )
            assert item['class'] == classes[int(expected.labels[index])]
            mask = codes.decode(item['segmentation'])
            assert (mask == expected.masks[index].numpy()).all()
            total += 1
        with Image.open(tmp_path / 'overlay' / f'{Path(name).stem}.jpg') as i:
            assert i.size == (96, 96)
    assert total > 4


def test_score_leaves_out(detector, tmp_path):
    predict(detector, tmp_path, '--score', '1', '--overlay-format', 'png')
    for path in (tmp_path / 'instances').iterdir():
        assert json.loads(path.read_text()) == []
    # Nothing is drawn, so that the picture is as it was.
    for path in (tmp_path / 'overlay').iterdir():
        picture = cv2.imread(str(detector / 'in' / path.name))
        drawn = cv2.imread(str(path))
        assert np.abs(picture.astype(int) - drawn).mean() < 3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--save', 'mask'), '--save mask: this model gives overlay, inst'),
        (('--slide', '64'), 'only segmentors predict in windows'),
        (('--score', '2'), r'\(--score\) must be 0 to 1, got 2'),
        (('--classes', 'a,b'), 'Got 2 class names for a model of 6 classes'),
    ],
)
def test_bad_options(detector, tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        predict(detector, tmp_path / 'out', *options)
    assert not (tmp_path / 'out').exists()


def test_class_names_are_those_of_the_dataset(detector):
    model = load_model(str(CONFIG), str(detector / 'weights.pth'))
    assert model.dataset_meta['classes'][0] == 'red flag'
    assert model.dataset_meta['palette'][1] == [35, 80, 225]
    assert isinstance(make_predictor(model), Detector)


def test_video(detector, tmp_path):
    writer = cv2.VideoWriter(
        str(detector / 'in/clip.avi'),
        cv2.VideoWriter_fourcc(*'MJPG'),
        5,
        (96, 96),
    )
    frame = cv2.imread(str(detector / 'in/0.png'))
    for _ in range(3):
        writer.write(frame)
    writer.release()
    try:
        options = ('--save', 'overlay', 'instances', '--score', '0.1')
        assert predict(detector, tmp_path, *options) == 0
    finally:
        (detector / 'in/clip.avi').unlink()
    frames = sorted((tmp_path / 'instances/clip').iterdir())
    assert [path.name for path in frames] == [
        f'{index:06d}.json' for index in range(3)
    ]
    # One picture three times.
    assert len({path.read_text() for path in frames}) == 1
    assert json.loads(frames[0].read_text())
    video = cv2.VideoCapture(str(tmp_path / 'overlay/clip.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_shades_are_those_of_the_frame_before(detector):
    """So that no mask flickers; and nobody else's random numbers change."""
    picture = np.full((64, 64, 3), 128, np.uint8)
    found = InstanceData(
        bboxes=torch.tensor([[8.0, 8, 56, 56]]),
        labels=torch.tensor([0]),
        masks=torch.zeros(1, 64, 64, dtype=torch.bool),
    )
    found.masks[:, 20:50, 12:52] = True
    meta = dict(classes=('a',), palette=[[200, 40, 40]])
    paint = InstancePainter(meta, 0.5)
    first = paint(picture, found)
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    second = paint(picture, found)
    assert np.random.rand() == expected
    assert np.array_equal(first, second)
    assert (first[40, 30] != picture[40, 30]).any()
