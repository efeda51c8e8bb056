# Copyright (c) mmseg_attn contributors.
"""A stereo network as a file: the same disparities, with and without hosts."""

import subprocess
import sys
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

from mmseg_attn import load_model, predict
from mmseg_attn.__main__ import main
from mmseg_attn.errors import UserError
from mmseg_attn.export import export
from mmseg_attn.export.network import PairNetwork
from mmseg_attn.export.writers import convert_onnx
from mmseg_attn.models import PSMNetFeatures
from mmseg_attn.pictures.disparity_files import read_disparity
from mmseg_attn.runtime import ExportedSegmenter, open_runner, open_session

DEMO = Path(__file__).parents[2] / 'configs/demo'
CONFIG = DEMO / 'psmnet_1xb2-400_demo-stereo-96x192.py'
EA = dict(type='mmseg_attn.EfficientAttention')


@MODELS.register_module()
class ShallowFeatures(PSMNetFeatures):
    """Of one block where there are 16, to be exported in seconds."""

    def __init__(self, **options):
        super().__init__(**options)
        for name in ('layer1', 'layer2', 'layer3', 'layer4'):
            setattr(self, name, getattr(self, name)[:1])


@pytest.fixture(scope='module', params=['attention', 'basic'])
def stereo(request, tmp_path_factory):
    """Two networks, as ONNX; their least side is of 64 pixels."""
    root = tmp_path_factory.mktemp('stereo')
    cfg = Config.fromfile(CONFIG)
    cfg.crop_size = (64, 96)
    cfg.model.max_disparity = 16
    cfg.model.features.type = 'ShallowFeatures'
    if request.param == 'attention':
        cfg.model.aggregation.attention = EA
    else:
        cfg.model.aggregation.type = 'mmseg_attn.BasicAggregation'
        cfg.model.one_batch = False
    cfg.dump(root / 'config.py')
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for module in model.modules():  # as after a training
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_(std=0.1)
    for name, last in model.aggregation.named_children():
        if name in ('classify', 'classif3'):
            last[-1].weight.data *= 100
    torch.save({'state_dict': model.state_dict()}, root / 'a.pth')
    given = root / 'config.py', root / 'a.pth'
    found = export(*given, root / 'model.onnx')
    return SimpleNamespace(
        given=given, file=root / 'model.onnx', card=found.card
    )


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    """Pairs of odd sizes, from below the network's least to twice that."""
    root = tmp_path_factory.mktemp('pairs')
    rng = np.random.default_rng(0)
    sizes = (('a', (70, 131)), ('sub/b', (41, 65)), ('sub/c', (129, 133)))
    for name, (height, width) in sizes:
        scene = rng.integers(0, 256, (height, width + 5, 3), np.uint8)
        for side, start in (('left', 0), ('right', 5)):
            path = root / side / f'{name}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), scene[:, start : start + width])
    (root / 'calib.txt').write_text('focal=100\nbaseline=20\n')
    return root


def run(*words):
    assert not main(['predict', *map(str, words)])


@pytest.fixture(scope='module')
def expected(stereo, pairs):
    """Pairs of paths, and what the host's model finds."""
    both = [
        tuple(pairs / side / f'{name}.png' for side in ('left', 'right'))
        for name in ('a', 'sub/b', 'sub/c')
    ]
    model = load_model(*stereo.given, device='cpu')
    found = predict(model, both)
    assert min(disparity.std() for disparity in found) > 0.5
    return list(zip(both, found, strict=True))


def differences(file, expected):
    runner = open_runner(file)
    for pair, wanted in expected:
        (found,) = runner([runner.prepare(pair)])
        assert found.shape == wanted.shape and found.dtype == np.float32
        yield np.abs(found - wanted).max() / 16


def test_file_gives_what_the_host_gives(stereo, expected):
    assert max(differences(stereo.file, expected)) <= 1e-4
    card = open_session(stereo.file).card
    assert (card.task, card.frames, card.max_disparity) == ('stereo', 2, 16)
    assert card.mean == pytest.approx((123.675, 116.28, 103.53))
    assert len(card.names['config_sha256']) == 64
    with pytest.raises(UserError, match="the task 'stereo'.* open_runner"):
        ExportedSegmenter(open_session(stereo.file))


def test_a_pair_is_two_paths(stereo):
    runner, path = open_runner(stereo.file), 'left.png'
    for given in (None, path, (path,), (path, None), (path,) * 3, ()):
        with pytest.raises(UserError, match='the pair is of .*two pictures'):
            runner.prepare(given)


def test_half_precision_is_near(stereo, expected):
    """The network of --fp16; its files take long to be traced."""
    model = load_model(*stereo.given, device='cpu')
    network = PairNetwork(model, half=True).eval()
    pair, wanted = min(expected, key=lambda item: item[1].size)
    sample = open_runner(stereo.file).prepare(pair).data['inputs']
    given = torch.from_numpy(sample[None, ..., ::-1].copy())
    with torch.inference_mode():
        (found,) = network(given)
    assert found.dtype == torch.float32
    assert 0 < np.abs(found.numpy() - wanted).max() <= 2e-3 * 16


def test_openvino(stereo, expected, tmp_path):
    pytest.importorskip('openvino')
    convert_onnx(stereo.file, stereo.card, tmp_path / 'a.xml')
    assert max(differences(tmp_path / 'a.xml', expected)) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('stereo', ['attention'], indirect=True)
def test_program_by_the_command(stereo, expected, tmp_path, capsys):
    path = tmp_path / 'a.pt2'
    main(['export', *map(str, (*stereo.given, path))])
    text = capsys.readouterr().out
    assert 'gives disparities below 16 pixels' in text
    assert 'LEFT --right RIGHT' in text and 'of another class' not in text
    assert max(differences(path, expected)) <= 1e-5


def test_results_are_those_of_the_checkpoint(stereo, pairs, tmp_path):
    host, file = tmp_path / 'host', tmp_path / 'file'
    words = ['--right', pairs / 'right', '--calibration', pairs / 'calib.txt']
    words = [pairs / 'left', *words, '--overlay-format', 'png', '--out']
    run(*stereo.given, *words, host)
    run(stereo.file, *words, file)
    names = {p.relative_to(host) for p in host.rglob('*') if p.is_file()}
    assert names == {
        p.relative_to(file) for p in file.rglob('*') if p.is_file()
    }
    assert len(names) == 3 * 4 + 1 and Path('depth/sub/b.pfm') in names
    for name in names:
        both = host / name, file / name
        if name.parts[0] in ('pfm', 'png', 'depth'):
            maps = list(map(read_disparity, both))
            np.testing.assert_allclose(*maps, rtol=2e-4, atol=1 / 256)
        elif name.parts[0] == 'overlay':
            shown = [np.asarray(Image.open(path), int) for path in both]
            assert (shown[0] != shown[1]).mean() < 0.01


def test_needs_no_host_and_no_opencv(stereo, pairs, tmp_path):
    code = (
        'import sys\n'
        "bad = ('torch', 'cv2', 'mmcv', 'mmengine', 'mmseg', 'matplotlib')\n"
        'class Missing:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        "        if name.partition('.')[0] in bad:\n"
        '            raise ModuleNotFoundError(name, name=name)\n'
        'sys.meta_path.insert(0, Missing())\n'
        'from mmseg_attn.__main__ import main\n'
        'main(sys.argv[1:])\n'
        'assert not set(bad) & set(sys.modules)\n'
    )
    words = [stereo.file, pairs / 'left', '--right', pairs / 'right', '--out']
    done = subprocess.run(
        [
            *(sys.executable, '-c', code, 'predict'),
            *map(str, (*words, tmp_path / 'alone')),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    run(*words, tmp_path / 'beside')
    for name in ('png/a.png', 'png/sub/b.png'):
        both = [
            np.asarray(Image.open(tmp_path / place / name))
            for place in ('alone', 'beside')
        ]
        assert both[0].dtype == both[1].dtype and both[0].max() > 256
        np.testing.assert_array_equal(*both)
    shown = Image.open(tmp_path / 'alone/overlay/a.jpg')
    assert shown.size == (131 + 88, 120)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--output', 'mask'], '--output mask is for segmentors'),
        (['--no-resize'], '--no-resize is for segmentors'),
        (['--int8', 'pictures'], '--int8 is for segmentors'),
        (['--slide', '64'], 'only segmentors predict in windows'),
        (['--classes', 'a'], 'has no classes'),
    ],
)
def test_wishes_that_make_no_sense(tmp_path, words, message):
    weights = tmp_path / 'a.pth'
    torch.save({}, weights)
    with pytest.raises(SystemExit, match=message):
        main(
            ['export', str(CONFIG), str(weights)]
            + [str(tmp_path / 'out/a.onnx'), *words]
        )
    assert not (tmp_path / 'out').exists()


def test_configs_that_a_file_cannot_hold(stereo, tmp_path):
    cfg = Config.fromfile(stereo.given[0])
    cfg.model.data_preprocessor.test_cfg = dict(size_divisor=32)
    out = tmp_path / 'a.pt2'
    with pytest.raises(UserError, match='which a stereo network does itself'):
        export(cfg, stereo.given[1], out)
    cfg = Config.fromfile(stereo.given[0])
    cfg.test_dataloader.dataset.pipeline.insert(
        1, dict(type='Resize', scale=(64, 64))
    )
    with pytest.raises(UserError, match='take Resize out of it'):
        export(cfg, stereo.given[1], out)
    assert not list(tmp_path.iterdir())


def test_error_texts_are_those_of_the_checkpoint(stereo, pairs, tmp_path):
    left, right = pairs / 'left', pairs / 'right'
    for words in (
        [left],
        [left, '--right', 'none.png'],
        [left / 'a.png', '--right', left / 'a.png'],
        [left, '--right', right, '--save', 'depth'],
        [left, '--right', right, '--save', 'scores'],
        [left, '--right', right, '--names'],
    ):
        texts = []
        for model in (stereo.given, [stereo.file]):
            with pytest.raises(SystemExit) as end:
                run(*model, *words, '--out', tmp_path / 'out')
            text = str(end.value.code)
            texts.append(text.replace(str(stereo.given[0]), str(stereo.file)))
        assert texts[0] == texts[1]
    assert not (tmp_path / 'out').exists()
