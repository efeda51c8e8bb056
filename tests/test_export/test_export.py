# Copyright (c) mmseg_attn contributors.
"""A trained segmentor becomes a file that gives what the host gives."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_segmentor import CLASSES, PALETTE, picture

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')

from mmseg_attn import find_config, list_configs, load_model, predict
from mmseg_attn.apis import loading
from mmseg_attn.errors import UserError
from mmseg_attn.export import export, exporting, measuring
from mmseg_attn.export.checking import Difference, check
from mmseg_attn.runtime import ExportedSegmenter, open_session


@pytest.fixture(scope='module')
def onnx(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp('exported') / 'model.onnx'
    return export(trained.config, trained.checkpoint, path)


def test_file_gives_what_the_host_gives(trained, onnx, tmp_path):
    model = load_model(trained.config, trained.checkpoint, device='cpu')
    segmenter = ExportedSegmenter(open_session(onnx.path))
    segmenter.keep_scores()
    for seed, size in enumerate(((64, 64), (75, 101), (41, 130))):
        image, truth = picture(seed, *size)
        path = tmp_path / f'{seed}.png'
        cv2.imwrite(str(path), image)
        expected = predict(model, path, scores=True)
        (found,) = segmenter([segmenter.prepare(path)])
        np.testing.assert_array_equal(found.mask, expected.mask)
        assert np.abs(found.scores - expected.scores).max() <= 1e-5
        assert (found.mask == truth).mean() > 0.95  # it has learnt


def test_card_says_what_is_needed(trained, onnx):
    card = open_session(onnx.path).card
    assert card.classes == CLASSES
    assert [list(colour) for colour in card.palette] == PALETTE
    assert card.mean == (120.0,) * 3 and card.std == (60.0,) * 3
    assert card.window is None and card.precision == 'fp32'
    assert card.names['config'] == 'tiny_discs.py'
    assert len(card.names['checkpoint_sha256']) == 64
    assert onnx.bytes == onnx.path.stat().st_size
    assert len({item.size for item in onnx.differences}) == 3


def as_they_are(config):
    """Have the config test on pictures of any size."""
    steps = config.test_dataloader.dataset.pipeline
    kept = [step for step in steps if step['type'] != 'Resize']
    config.test_dataloader.dataset.pipeline = kept
    return config


def test_means_of_the_card_are_red_first(trained, tmp_path):
    config = Config.fromfile(trained.config)
    config.model.data_preprocessor.mean = [10.0, 20.0, 30.0]
    path = tmp_path / 'a.pt2'
    as_they_are(config)
    card = export(config, trained.checkpoint, path, output='mask').card
    assert card.mean == (10.0, 20.0, 30.0)
    image, _ = picture(3)
    expected = predict(
        load_model(config, trained.checkpoint, device='cpu'), image
    )
    segmenter = ExportedSegmenter(open_session(path))
    (found,) = segmenter([segmenter.prepare(image)])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(UserError, match='without scores'):
        segmenter.keep_scores()


def test_resized_pictures_are_those_of_the_pipeline(trained, tmp_path):
    config = Config.fromfile(trained.config)
    steps = config.test_dataloader.dataset.pipeline
    resize = dict(type='Resize', scale=(96, 80), keep_ratio=True)
    config.test_dataloader.dataset.pipeline = [steps[0], resize, steps[-1]]
    path = tmp_path / 'a.pt2'
    found = export(
        config, trained.checkpoint, path, output='logits', resized=False
    )
    assert found.card.scale == (96, 80)
    segmenter = ExportedSegmenter(open_session(path))
    image, _ = picture(1, 120, 70)
    sample = segmenter.prepare(image)
    assert sample.data['inputs'].shape == (96, 56, 3)
    (mask,) = segmenter([sample])
    model = load_model(config, trained.checkpoint, device='cpu')
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    expected = predict(model, tmp_path / 'a.png')
    # The host resizes logits twice, the file's reader once.
    assert mask.shape == (120, 70)
    assert (mask != expected).mean() < 0.01


def test_fixed_size_takes_no_other(trained, tmp_path):
    path = tmp_path / 'a.pt2'
    config = as_they_are(Config.fromfile(trained.config))
    export(config, trained.checkpoint, path, fixed_size=(48, 80))
    segmenter = ExportedSegmenter(open_session(path))
    (mask,) = segmenter([segmenter.prepare(picture(0, 48, 80)[0])])
    assert mask.shape == (48, 80)
    with pytest.raises(UserError, match='takes 48 x 80 alone'):
        segmenter([segmenter.prepare(picture(0)[0])])


def test_fixed_windows_take_larger_pictures(trained, tmp_path):
    config = as_they_are(Config.fromfile(trained.config))
    given = config, trained.checkpoint, tmp_path / 'a.pt2'
    with pytest.raises(UserError, match='windows of 48 x 48 .* one size'):
        export(*given, slide=48, fixed_size=(48, 80))
    found = export(*given, slide=48, fixed_size=(48, 48))
    assert [item.size for item in found.differences] == [(48, 48)]
    segmenter = ExportedSegmenter(open_session(found.path))
    image, _ = picture(2, 75, 101)
    (mask,) = segmenter([segmenter.prepare(image)])
    model = load_model(*given[:2], device='cpu', slide=48)
    np.testing.assert_array_equal(mask, predict(model, image))
    small = segmenter.prepare(image[:40])
    with pytest.raises(UserError, match='takes 48 x 48 .* larger pictures'):
        segmenter([small])


def test_half_precision_agrees(trained, tmp_path):
    path = tmp_path / 'a.pt2'
    found = export(trained.config, trained.checkpoint, path, half=True)
    assert found.card.precision == 'fp16'
    state = torch.export.load(path).state_dict
    weights = [v for n, v in state.items() if n.endswith('conv1.weight')]
    assert weights and {v.dtype for v in weights} == {torch.float16}
    # The model is measured beside the file.
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}


def test_eight_bits_find_the_same(trained, onnx, tmp_path):
    pictures = tmp_path / 'pictures'
    pictures.mkdir()
    for seed in range(40, 48):
        cv2.imwrite(str(pictures / f'{seed}.png'), picture(seed)[0])
    path = tmp_path / 'a.onnx'
    found = export(trained.config, trained.checkpoint, path, int8=[pictures])
    assert found.bytes < 0.6 * onnx.bytes
    session = open_session(path)
    assert session.card.precision == 'int8'
    segmenter = ExportedSegmenter(session)
    for seed in (50, 51):
        image, truth = picture(seed)
        (mask,) = segmenter([segmenter.prepare(image)])
        assert (mask == truth).mean() > 0.93


def test_a_file_that_disagrees_is_not_left(trained, tmp_path, monkeypatch):
    class Other(exporting.PictureNetwork):
        def forward(self, pictures):
            return 2 * super().forward(pictures)

    path = tmp_path / 'a.pt2'
    path.write_text('an earlier one')
    wrong = lambda network, *args: trace(Other.of(network), *args)  # noqa: E731
    trace = exporting.trace
    Other.of = staticmethod(
        lambda network: Other(network.model, network.output).eval()
    )
    monkeypatch.setattr(exporting, 'trace', wrong)
    with pytest.raises(UserError, match='disagrees .* --fixed-size'):
        export(trained.config, trained.checkpoint, path)
    assert [p.name for p in tmp_path.iterdir()] == ['a.pt2']
    assert path.read_text() == 'an earlier one'


def test_detectors_are_refused(tmp_path):
    names = [str(name) for name in list_configs() if 'rcnn' in str(name)]
    with pytest.raises(UserError, match='detector cannot be exported: its'):
        export(find_config(names[0]), 'none.pth', tmp_path / 'a.onnx')
    assert not list(tmp_path.iterdir())


def test_bad_wishes(trained, tmp_path):
    given = trained.config, trained.checkpoint
    with pytest.raises(UserError, match='expected .onnx, .xml, .pt2'):
        export(*given, tmp_path / 'a.trt')
    with pytest.raises(UserError, match='int8'):
        export(*given, tmp_path / 'a.pt2', int8=[tmp_path])
    file = tmp_path / 'file'
    file.touch()
    (tmp_path / 'a.onnx').mkdir()
    for out, line in (
        (tmp_path / 'a.onnx', 'a folder'),
        (file / 'a.onnx', 'cannot be written .*file is a file'),
        ('/proc/a/a.onnx', 'cannot be written'),
    ):
        with pytest.raises(UserError, match=line):
            export('not_read.py', 'not_read.pth', out)
    (tmp_path / 'a.png').write_text('no picture')
    with pytest.raises(UserError, match='a.png cannot be read'):
        export(
            *(trained.config, 'not_read.pth', tmp_path / 'b.onnx'),
            int8=[tmp_path],
        )
    for path in (file, tmp_path / 'a.png'):
        path.unlink()
    (tmp_path / 'a.onnx').rmdir()
    config = Config.fromfile(trained.config)
    config.test_dataloader.dataset.pipeline.insert(
        1, dict(type='RandomFlip', prob=1.0)
    )
    with pytest.raises(UserError, match='RandomFlip.* cannot tell'):
        export(config, trained.checkpoint, tmp_path / 'a.onnx')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('words', 'reason'),
    [
        ({}, 'pipeline resizes pictures'),
        (dict(slide=0), 'predicted in windows'),
        (dict(resized=False), '--no-resize leaves them'),
    ],
)
def test_class_maps_that_predict_could_not_use(
    trained, tmp_path, words, reason
):
    config = Config.fromfile(trained.config)
    if words:
        as_they_are(config)
    out = tmp_path / 'a.onnx'
    with pytest.raises(UserError, match=f'{reason}.*leave --output mask out'):
        export(config, 'not_read.pth', out, output='mask', **words)


def test_files_of_such_class_maps_are_not_run(onnx):
    for changes in (dict(resized=False), dict(window=(48, 48))):
        card = replace(onnx.card, output='mask', scale=None, **changes)
        with pytest.raises(UserError, match='not of the size of pictures'):
            ExportedSegmenter(SimpleNamespace(card=card))


def test_a_wrong_ending_is_found_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr('mmseg_attn.commands.export.load_config', None)
    with pytest.raises(SystemExit, match='a.foo has no ending .* .onnx, .xml'):
        command(SimpleNamespace(config='x', checkpoint='y'), 'a.foo')


def test_advice_is_of_what_was_exported(onnx):
    far = [Difference((48, 48), 9.0, 1.0, 0, 0)]
    for changes, advice in (
        ({}, 'to one size: --fixed-size'),
        (dict(fixed_size=(48, 48)), 'another format'),
        (dict(precision='fp16'), 'leave out --fp16'),
        (dict(task='stereo', output='disparity'), 'give it trained weights'),
    ):
        card = replace(onnx.card, **changes)
        with pytest.raises(UserError, match=advice):
            check(far, card, '.onnx')


def test_command_and_measure(trained, tmp_path, capsys, monkeypatch):
    called = []
    for module, name in ((loading, 'load_weights'), (measuring, 'find_pairs')):
        whole = getattr(module, name)

        def counted(*args, whole=whole, name=name):
            called.append(name)
            return whole(*args)

        monkeypatch.setattr(module, name, counted)
    for folder in ('images', 'masks'):
        (tmp_path / folder).mkdir()
    for seed in range(30, 33):
        image, mask = picture(seed, 70, 80)
        cv2.imwrite(str(tmp_path / f'images/{seed}.png'), image)
        Image.fromarray(mask).save(tmp_path / f'masks/{seed}.png')
    folders = [f'--{n}={tmp_path / n}' for n in ('images', 'masks')]
    out = tmp_path / 'a.pt2'
    with pytest.raises(SystemExit, match='both folders'):
        command(trained, out, folders[0])
    command(trained, out, *folders)
    assert sorted(called) == ['find_pairs', 'load_weights']
    text = capsys.readouterr().out
    assert '2 classes, gives logits' in text and 'Next: python -m' in text
    line = next(line for line in text.splitlines() if 'mIoU' in line)
    before, after = (
        float(word)
        for word in line.split()
        if '.' in word and word.replace('.', '').isdigit()
    )
    assert before == after > 80


def test_command_says_what_was_not_compared(
    trained, onnx, monkeypatch, capsys
):
    found = onnx

    def exported(*args, **options):
        return found

    monkeypatch.setattr('mmseg_attn.export.export', exported)
    windows = dict(window=(64, 64), stride=(48, 48))
    for changes, notes in (
        ({}, ()),
        (dict(precision='int8'), ('noise',)),
        (windows, ('one window',)),
        (dict(precision='int8', **windows), ('noise', 'one window')),
    ):
        found = replace(onnx, card=replace(onnx.card, **changes))
        command(trained, onnx.path)
        text = capsys.readouterr().out
        for note in ('noise', 'one window'):
            assert (note in text) == (note in notes), (changes, note)


def command(trained, *words):
    from mmseg_attn.__main__ import main

    main(['export', trained.config, trained.checkpoint, *map(str, words)])
