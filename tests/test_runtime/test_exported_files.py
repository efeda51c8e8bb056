# Copyright (c) mmseg_attn contributors.
"""The command predict by an exported file: the same results, and no host."""

import json
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_segmentor import picture

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')

from mmseg_attn.__main__ import main
from mmseg_attn.errors import UserError
from mmseg_attn.export import export
from mmseg_attn.runtime import (
    Card,
    ExportedSegmenter,
    open_runner,
    open_session,
)
from mmseg_attn.runtime.resizing import resize, resize_bytes
from mmseg_attn.runtime.sessions import Session


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
    """A file that predicts in windows of 48, and its config."""
    config = Config.fromfile(trained.config)
    config.model.test_cfg = dict(
        mode='slide', crop_size=(48, 48), stride=(32, 32)
    )
    config.model.data_preprocessor.test_cfg = dict(size_divisor=16)
    steps = config.test_dataloader.dataset.pipeline
    kept = [step for step in steps if step['type'] != 'Resize']
    config.test_dataloader.dataset.pipeline = kept
    root = tmp_path_factory.mktemp('runtime')
    config.dump(str(root / 'config.py'))
    export(config, trained.checkpoint, root / 'model.onnx')
    return root


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    for seed, size in enumerate(((70, 100), (48, 48), (40, 120))):
        cv2.imwrite(str(folder / f'{seed}.png'), picture(seed, *size)[0])
    return folder


def run(*words):
    assert not main(['predict', *map(str, words)])


def test_results_are_those_of_the_host(exported, trained, pictures, tmp_path):
    kinds = ['--save', 'mask', 'overlay', 'areas', 'coco']
    host, file = tmp_path / 'host', tmp_path / 'file'
    config = exported / 'config.py'
    run(config, trained.checkpoint, pictures, '--out', host, *kinds)
    run(exported / 'model.onnx', pictures, '--out', file, *kinds)
    names = {p.relative_to(host) for p in host.rglob('*') if p.is_file()}
    assert len(names) == 3 * 4 + 2
    for name in names:
        if name.name != 'predict.json':
            assert (file / name).read_bytes() == (host / name).read_bytes()
    note = json.loads((file / 'predict.json').read_text())
    assert note['classes'] == ['ground', 'disc']


def test_scores_are_averaged_over_windows(
    exported, trained, pictures, tmp_path
):
    host, file = tmp_path / 'host', tmp_path / 'file'
    words = ['--save', 'scores', '--score-type', 'float16']
    config = exported / 'config.py'
    run(config, trained.checkpoint, pictures, '--out', host, *words)
    run(exported / 'model.onnx', pictures, '--out', file, *words)
    for path in (host / 'scores').iterdir():
        expected = np.load(path)['scores']
        found = np.load(file / 'scores' / path.name)['scores']
        assert np.abs(found - expected.astype(float)).max() <= 2e-3


class Network(Session):
    """In place of a file: windows that overlap are far from agreement."""

    def __init__(self, card, count):
        self.card, self.count = card, count

    def run(self, pictures):
        x = torch.from_numpy(pictures[:, ::2, ::2].copy()).double()
        weights = torch.randn(3, self.count, generator=torch.manual_seed(0))
        logits = (x - x.mean((1, 2), True)) @ weights.double() / 20
        logits = logits.movedim(-1, 1)
        if self.card.output == 'probabilities':
            if self.count == 1:
                logits = torch.cat([torch.zeros_like(logits), logits], 1)
            logits = logits.softmax(1)
        return logits.float().numpy()


@pytest.mark.parametrize(('count', 'threshold'), [(4, 0.5), (1, 0.3)])
def test_of_probabilities_logits_are_averaged(count, threshold):
    names = tuple(map(str, range(max(count, 2))))
    card = Card(
        names, ((0, 0, 0),) * len(names), threshold=threshold, resized=False
    )
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    image = resize_bytes(noise, (70, 100))
    for changes in ({}, dict(window=(32, 32), stride=(20, 20))):
        found = []
        for output in ('logits', 'probabilities'):
            words = dict(output=output, **changes)
            network = Network(replace(card, **words), count)
            segmenter = ExportedSegmenter(network)
            segmenter.keep_scores()
            found.append(segmenter([segmenter.prepare(image)])[0])
        assert len(np.unique(found[0].mask)) == len(names)
        np.testing.assert_array_equal(found[0].mask, found[1].mask)
        assert np.abs(found[0].scores - found[1].scores).max() < 1e-5


def test_needs_no_host_no_torch_and_no_opencv(exported, pictures, tmp_path):
    # As where none of them is installed.
    code = (
        'import sys, time\n'
        "bad = ('torch', 'cv2', 'mmcv', 'mmengine', 'mmseg', 'mmdet',\n"
        "       'matplotlib')\n"
        'class Missing:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        "        if name.partition('.')[0] in bad:\n"
        '            raise ModuleNotFoundError(name, name=name)\n'
        'sys.meta_path.insert(0, Missing())\n'
        'from mmseg_attn.__main__ import main\n'
        'main(sys.argv[1:])\n'
        'assert not set(bad) & set(sys.modules)\n'
        'assert time.process_time() < 5, time.process_time()\n'
    )
    words = [exported / 'model.onnx', pictures, '--out', tmp_path / 'alone']
    done = subprocess.run(
        [sys.executable, '-c', code, 'predict', *map(str, words)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    words[-1] = tmp_path / 'beside'
    run(*words)
    for seed in range(3):
        masks = [
            np.asarray(Image.open(tmp_path / name / f'mask/{seed}.png'))
            for name in ('alone', 'beside')
        ]
        np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize('align_corners', [False, True])
def test_resizing_is_torchs(align_corners):
    values = torch.randn(2, 3, 7, 9)
    for size in ((14, 5), (3, 31), (7, 9)):
        expected = torch.nn.functional.interpolate(
            values, size, mode='bilinear', align_corners=align_corners
        )
        found = resize(values.numpy(), size, align_corners)
        torch.testing.assert_close(
            torch.from_numpy(found), expected, atol=1e-5, rtol=0
        )


def test_wrong_calls_are_told(exported):
    file = exported / 'model.onnx'
    runner = open_runner(file)
    flat = np.zeros((40, 40, 3), np.uint8)
    cases = {
        'path of the exported file is None': lambda: open_runner(None),
        'provider .* is None': lambda: open_runner(file, None),
        'is a folder, expected a picture': lambda: runner.prepare('.'),
        'got a NoneType, .* prepare': lambda: runner(None),
        'got a Sample, .* prepare': lambda: runner(runner.prepare(flat)),
        'got a ndarray, .* prepare': lambda: runner([flat]),
        'gets a NoneType, .* uint8': lambda: runner.session(None),
        'dtype float32, .* uint8': lambda: runner.session(
            flat[None].astype(np.float32)
        ),
        r'shape \(40, 40, 3\)': lambda: runner.session(flat),
        'gets a list, .* uint8': lambda: runner.run([flat]),
        r'gets shape \(40, 40\)': lambda: runner.run(flat[..., 0]),
    }
    for line, call in cases.items():
        with pytest.raises(UserError, match=line):
            call()


def test_polygons_say_what_they_need(exported, pictures, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'contourpy', None)
        words = [str(exported / 'model.onnx'), str(pictures)]
        main(['predict', *words, '--save', 'coco', '--out', str(tmp_path)])
    assert 'needs contourpy' in capsys.readouterr().err


def test_pictures_are_resized_as_by_opencv(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    sizes = ((33, 91), (25, 35), (100, 140), (64, 51), (1, 200))
    expected = [resize_bytes(noise, size) for size in sizes]
    monkeypatch.setattr('mmseg_attn.runtime.resizing.cv2', None)
    for size, wanted in zip(sizes, expected, strict=True):
        found = resize_bytes(noise, size)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, wanted)


def test_options_of_the_other_way(exported, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'in.onnx').mkdir()
    file = exported / 'model.onnx'
    for words, line in (
        ([file, pictures, '--tta'], '--tta is for a config'),
        ([file, pictures, '--slide'], '--slide is for a config'),
        ([file, pictures, '--no-resize'], '--no-resize is for a config'),
        ([file, pictures, '--provider', 'CUDA'], 'onnxruntime-gpu'),
        ([file, pictures, '--provider', 'gpu'], 'expected cpu, cuda'),
        ([exported / 'none.onnx', pictures], 'none.onnx does not exist'),
        (['in.onnx', pictures], 'in.onnx is a folder'),
        (['a.py', 'b.pth'], 'expected a config, a checkpoint and pictures'),
        (['a.py', 'b.pth', 'c', '--provider', 'cpu'], 'exported models'),
        (['a.jpg', 'm.onnx'], 'm.onnx is an exported model behind a.jpg'),
        (['a.py', 'm.onnx', 'a.jpg'], 'given first, and without a config'),
        (['a.py', 'w.pth', 'boxes.xml'], 'No config file a.py'),
    ):
        with pytest.raises(SystemExit) as end:
            run(*words)
        assert line in end.value.code and '\n' not in end.value.code


def test_files_that_are_none(exported, tmp_path):
    import onnx

    path = tmp_path / 'a.onnx'
    path.write_bytes((exported / 'model.onnx').read_bytes()[:5000])
    with pytest.raises(UserError, match='damaged'):
        open_session(path)
    network = onnx.load(exported / 'model.onnx')
    entry = network.metadata_props[-1]
    assert '["ground", "disc"]' in entry.value
    entry.value = entry.value.replace('"disc"]', '"disc", "square"]')
    onnx.save(network, path)
    with pytest.raises(UserError, match='3 classes, and its network gives 2'):
        open_session(path)
    del network.metadata_props[:]
    onnx.save(network, path)
    with pytest.raises(UserError, match='not written by the command export'):
        open_session(path)
    path.with_suffix('.pt2').write_bytes(b'PK')
    with pytest.raises(UserError, match='damaged'):
        open_session(path.with_suffix('.pt2'))


def test_a_program_with_code_is_not_read(tmp_path):
    """Torch itself would run it: a checkpoint as an older program."""
    marker, path = tmp_path / 'ran', tmp_path / 'a.pt2'

    class Evil:
        def __reduce__(self):
            return marker.touch, ()

    torch.save(Evil(), path)
    with pytest.raises(UserError, match='pickled'):
        open_session(path)
    assert not marker.exists()


def test_a_card_of_a_newer_version():
    card = Card(('a', 'b'), ((0, 0, 0), (1, 1, 1)), scale=(640, 480))
    assert Card.from_json(card.to_json(), 'a.onnx') == card
    text = card.to_json().replace('"format": 1', '"format": 2')
    with pytest.raises(UserError, match='newer mmseg_attn'):
        Card.from_json(text, 'a.onnx')
    with pytest.raises(UserError, match='damaged'):
        Card.from_json('{"format": 1}', 'a.onnx')
    for old, new in (
        ('[640, 480]', '"big"'),
        ('[640, 480]', '[640]'),
        ('[640, 480]', '[640.5, 480]'),
        ('"divisor": 1', '"divisor": null'),
        ('"resized": true', '"resized": 1'),
        ('["a", "b"]', '["a", 2]'),
    ):
        text = card.to_json().replace(old, new)
        name = 'classes' if new == '["a", 2]' else ''
        with pytest.raises(UserError, match=f'damaged .{name}.* is '):
            Card.from_json(text, 'a.onnx')
    older = card.to_json().replace('"channels": "RGB", ', '')
    assert Card.from_json(older, 'a.onnx') == card


def test_what_is_no_picture_is_told():
    card = Card(('a', 'b'), ((0, 0, 0), (1, 1, 1)))
    segmenter = ExportedSegmenter(Network(card, 2))
    for image in (None, np.zeros((0, 9, 3), np.uint8), np.zeros((9, 9))):
        with pytest.raises(UserError, match='picture is .* expected a path'):
            segmenter.prepare(image)
    samples = [
        segmenter.prepare(np.zeros((9, width, 3), np.uint8))
        for width in (8, 9)
    ]
    for some in ([], samples):
        with pytest.raises(UserError, match='expected one or more of one'):
            segmenter(some)
