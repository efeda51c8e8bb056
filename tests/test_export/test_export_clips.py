# Copyright (c) mmseg_attn contributors.
"""A segmentor for clips as a file: the masks of its checkpoint."""

import io
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')

from mmseg_attn.__main__ import main
from mmseg_attn.apis import load_model
from mmseg_attn.export.quantization import pictures_of, quantize
from mmseg_attn.runtime import open_runner, open_session
from mmseg_attn.runtime.card import KEY
from mmseg_attn.video import write_video

DEMO = Path(__file__).parents[2] / 'configs/demo'
CONFIG = DEMO / 'ccnet3d-t5_r18-s4_1xb8-2k_demo-clips-96x96.py'


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """Weights, frames two of which are a clip's three apart, and a video."""
    root = tmp_path_factory.mktemp('clips')
    cfg = Config.fromfile(CONFIG)
    cfg.crop_size = (48, 64)
    cfg.test_dataloader.dataset.update(frames=3, frame_step=2)
    resize = dict(type='Resize', scale=(72, 50), keep_ratio=True)
    cfg.test_dataloader.dataset.pipeline.insert(
        1, dict(type='mmseg_attn.ClipTransform', transforms=[resize])
    )
    cfg.model.label_frame = 2
    cfg.model.decode_head.recurrence = 1  # others take longer to be traced
    cfg.dump(root / 'config.py')
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.decode_head.conv_seg.weight.data.normal_()
    torch.save({'state_dict': model.state_dict()}, root / 'a.pth')
    rng = np.random.default_rng(0)
    (root / 'frames').mkdir()
    with write_video(root / 'a.mp4', 10) as video:
        for number in range(5):
            coarse = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
            frame = coarse.repeat(9, 0).repeat(9, 1)
            video.write(frame)
            cv2.imwrite(str(root / f'frames/f_{number:03d}.png'), frame)
    return SimpleNamespace(
        root=root, config=root / 'config.py', weights=root / 'a.pth'
    )


@pytest.fixture(scope='module')
def exported(clips):
    path = clips.root / 'model.onnx'
    with redirect_stdout(io.StringIO()) as told:
        main(['export', *map(str, (clips.config, clips.weights, path))])
    assert 'clips of 3 frames, 7 classes, gives logits' in told.getvalue()
    return path


def run(*words):
    assert not main(['predict', *map(str, words)])


def test_file_gives_what_the_model_gives(clips, exported):
    """Logits, of clips and sizes other than the traced ones."""
    model = load_model(clips.config, clips.weights, device='cpu')
    session = open_session(exported)
    card = session.card
    assert (card.task, card.frames) == ('clips', 3)
    assert (card.label_frame, card.frame_step) == (2, 2)
    assert card.scale == (72, 50) and len(card.classes) == 7
    rng = np.random.default_rng(0)
    for batch, height, width in ((1, 50, 41), (3, 33, 65)):
        shape = batch, 3, height, width, 3
        given = rng.integers(0, 256, shape, dtype=np.uint8)
        frames = torch.from_numpy(given).flip(-1).permute(0, 4, 1, 2, 3)
        data = dict(inputs=list(frames), data_samples=None)
        model.data_preprocessor.test_cfg = None
        with torch.no_grad():
            inputs = model.data_preprocessor(data)['inputs']
            padded = torch.nn.functional.pad(
                inputs, (0, -width % 4, 0, -height % 4)
            )
            metas = [dict(img_shape=padded.shape[-2:])] * batch
            expected = model.encode_decode(padded, metas)
        expected = expected[..., :height, :width].numpy()
        found = session(given)
        assert found.shape == expected.shape
        most = max(1, np.abs(expected).max())
        assert np.abs(found - expected).max() <= 1e-4 * most


@pytest.mark.parametrize('source', ['frames', 'frames/f_003.png', 'a.mp4'])
def test_results_are_those_of_the_checkpoint(
    clips, exported, source, tmp_path
):
    host, file = tmp_path / 'host', tmp_path / 'file'
    words = [clips.root / source, '--save', 'mask', 'overlay', 'areas']
    run(clips.config, clips.weights, *words, '--out', host)
    run(exported, *words, '--out', file)
    names = {p.relative_to(host) for p in host.rglob('*') if p.is_file()}
    assert names == {
        p.relative_to(file) for p in file.rglob('*') if p.is_file()
    }
    masks = [name for name in names if name.parts[0] == 'mask']
    assert len(masks) == (1 if source.endswith('3.png') else 5)
    for name in masks:
        mask = np.asarray(Image.open(host / name))
        assert len(mask) == 54 and len(np.unique(mask)) > 2
        assert (file / name).read_bytes() == (host / name).read_bytes()


def test_other_frames_count(clips, exported):
    """The clip's other frames, and no others, change what is found."""
    runner = open_runner(exported)
    files = sorted((clips.root / 'frames').iterdir())
    sample = runner.prepare(files[4])
    read = [cv2.imread(str(files[number])) for number in (0, 2, 4)]
    for given, frame in zip(sample.data['inputs'], read, strict=True):
        np.testing.assert_array_equal(given, runner.fit(frame))
    runner.keep_scores()
    (whole,) = runner([sample])
    (alone,) = runner([runner.prepare(read[2])])
    assert np.abs(whole.scores - alone.scores).max() > 0.01


def test_eight_bits(clips, exported):
    path = clips.root / 'int8.onnx'
    shutil.copy(exported, path)
    card = replace(open_session(path).card, precision='int8')
    quantize(path, card, pictures_of([clips.root / 'frames']))
    assert path.stat().st_size < 0.6 * exported.stat().st_size
    runners = open_runner(exported), open_runner(path)
    for name in ('f_002.png', 'f_003.png'):
        file = clips.root / 'frames' / name
        whole, eight = (run([run.prepare(file)])[0] for run in runners)
        assert len(np.unique(whole)) > 2 and (whole == eight).mean() > 0.95
        assert (whole != eight).any()


def test_windows(clips, exported, tmp_path):
    """In windows, each of which is a clip."""
    import onnx

    # As exported with --slide, which the network itself knows nothing of.
    network = onnx.load(exported)
    card = open_session(exported).card
    (entry,) = (e for e in network.metadata_props if e.key == KEY)
    entry.value = replace(card, window=(40, 40), stride=(26, 26)).to_json()
    onnx.save(network, tmp_path / 'a.onnx')
    host, file = tmp_path / 'host', tmp_path / 'file'
    words = [clips.root / 'frames', '--save', 'mask', '--out']
    run(clips.config, clips.weights, *words, host, '--slide', '40')
    run(tmp_path / 'a.onnx', *words, file)
    for path in (host / 'mask').iterdir():
        assert (file / 'mask' / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(SystemExit, match='no plain segmentor of pictures'):
        run(tmp_path / 'a.onnx', *words, file, '--bands', '1')
