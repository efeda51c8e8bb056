# Copyright (c) mmseg_attn contributors.
"""The name of a model of the zoo in the place of config and checkpoint."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import mmseg_attn
from mmseg_attn import metafiles
from mmseg_attn.__main__ import main
from mmseg_attn.apis import zoo
from mmseg_attn.commands.checkpoints import find_weights
from mmseg_attn.errors import UserError

NAME = 'ccnet-r2_r18-s4_1xb8-1k_demo-scenes-96x96'


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever reaches for the network fails."""

    def fail(*args, **kwargs):
        raise AssertionError('the network was asked')

    for name in ('connect', 'connect_ex'):
        monkeypatch.setattr(socket.socket, name, fail)
    monkeypatch.setattr(socket, 'getaddrinfo', fail)


@pytest.fixture
def picture(tmp_path, monkeypatch):
    """A picture in an empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    cv2.imwrite('a.png', noise)
    return 'a.png'


def mask(folder):
    return np.asarray(Image.open(f'{folder}/mask/a.png'))  # with a palette


def test_predict_needs_a_name_alone(picture, capsys):
    """The same comes of the config and the file that it stands for."""
    row = metafiles.find_row('demo_ccnet')
    assert not main(['predict', 'demo_ccnet', picture, '--out', 'one'])
    assert f'demo_ccnet: {row.file} of the zoo' in capsys.readouterr().out
    given = [NAME, str(row.packaged), picture, '--out', 'two']
    assert not main(['predict', *given])
    assert 'of the zoo' not in capsys.readouterr().out
    assert np.array_equal(mask('one'), mask('two'))
    assert len(np.unique(mask('one'))) > 1
    # The other format, and the name beside it.
    other = str(next(row.packaged.parent.glob('demo_ccnet-*.safetensors')))
    given = ['demo_ccnet', other, picture, '--out', 'three']
    assert not main(['predict', *given])
    assert 'of the zoo' not in capsys.readouterr().out
    assert np.array_equal(mask('one'), mask('three'))


def test_verify_takes_a_name(capsys):
    main(['zoo', 'verify', 'demo_ccnet'])
    path = metafiles.find_row('demo_ccnet').packaged
    text = capsys.readouterr().out
    assert text.startswith(f'{path}: sha256 ') and 'as in the metafile' in text
    with pytest.raises(SystemExit, match='has the name demo_cnet'):
        main(['zoo', 'verify', 'demo_cnet'])


def test_verify_of_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    name = next(row.title for row in metafiles.read_rows() if not row.packaged)
    with pytest.raises(SystemExit, match=f'zoo download {name}'):
        main(['zoo', 'verify', name])


def test_in_python(picture):
    model = mmseg_attn.load_model('demo_ccnet', device='cpu')
    assert model.dataset_meta['classes'][1] == 'red flag'
    row = metafiles.find_row('demo_ccnet')
    other = mmseg_attn.load_model(NAME, row.packaged, device='cpu')
    found = mmseg_attn.predict(model, picture)
    assert np.array_equal(found, mmseg_attn.predict(other, picture))
    mmseg_attn.predict_files('demo_ccnet', 'zoo', [picture], 'out')
    assert np.array_equal(mask('out'), found)
    # None still leaves the weights random.
    torch.manual_seed(0)
    fresh = mmseg_attn.load_model('demo_ccnet', None, device='cpu')
    key = 'decode_head.conv_seg.weight'
    assert not torch.equal(fresh.state_dict()[key], model.state_dict()[key])
    with pytest.raises(UserError, match='no checkpoint of eanet_r50'):
        mmseg_attn.load_model('eanet_r50-d8_4xb4-80k_ade20k-512x512')
    with pytest.raises(UserError, match='by the name of a model'):
        mmseg_attn.load_model(mmseg_attn.load_config(NAME))


def test_attention_and_export_take_it(picture, capsys):
    words = ['attention', 'demo_ccnet', picture]
    main([*words, '--pixel', '40', '30', '--layers', 'decode_head'])
    following = ' '.join([*words, '--html'])
    said = capsys.readouterr().out
    assert said.endswith(f'Next: python -m mmseg_attn {following}\n')
    assert Path('attention.png').is_file()
    cv2.imwrite('b.png', cv2.imread(picture))
    main([*words, '--html', 'b.png'])  # options may stand between
    text = Path('attention.html').read_text()
    assert 'a.png' in text and 'b.png' in text
    main(['flops', 'demo_ccnet'])
    said = capsys.readouterr().out
    assert said.endswith('Next: python -m mmseg_attn train demo_ccnet\n')


@pytest.mark.parametrize(
    'words, expected, rest',
    [
        (['demo_ccnet', 'w.pth', ['p.png']], 'w.pth', ['p.png']),
        (['demo_ccnet', 'run', ['p.png']], 'run/best_mIoU_iter_2.pth', None),
        (['demo_ccnet', 'p.png', []], 'zoo', ['p.png']),
        (['demo_ccnet', 'p.png', ['q.png']], 'zoo', ['p.png', 'q.png']),
        (['demo_ccnet', 'pictures', []], 'zoo', ['pictures']),
        (['demo_ccnet', None], 'zoo', None),
        ([f'{NAME}.py', None], 'zoo', None),
        (['mine.py', 'w.pth', ['p.png']], 'w.pth', ['p.png']),
        (['mine.py', 'weights', ['p.png']], 'weights', ['p.png']),
    ],
)
def test_which_weights(words, expected, rest, tmp_path, monkeypatch):
    """What is given wins; a picture is no checkpoint."""
    monkeypatch.chdir(tmp_path)
    for folder in ('run', 'pictures'):
        Path(folder).mkdir()
    for age, name in enumerate(('iter_1', 'iter_2')):
        Path(f'run/best_mIoU_{name}.pth').touch()
        os.utime(f'run/best_mIoU_{name}.pth', (age, age))
    Path('mine.py').write_text('model = None')
    found = find_weights(*words)
    if expected == 'zoo':
        expected = str(metafiles.find_row('demo_ccnet').packaged)
    assert found == expected
    if rest:
        assert words[2] == rest


@pytest.mark.parametrize(
    'words',
    [
        ['predict', 'demo_cnet', 'a.png'],
        ['attention', 'demo_cnet', 'a.png', '--pixel', '1', '1'],
        ['test', 'demo_cnet'],
        ['worst', 'demo_cnet'],
        ['export', 'demo_cnet', 'a.onnx'],
        ['flops', 'demo_cnet'],
        ['zoo', 'download', 'demo_cnet'],
        ['reproduce', 'demo_cnet'],
    ],
    ids=lambda words: words[0],
)
def test_a_near_name_is_told(words, picture):
    with pytest.raises(SystemExit, match='Did you mean .*demo_ccnet'):
        main(words)


def test_a_config_without_weights_wants_a_checkpoint(picture):
    name = 'eanet_r50-d8_4xb4-80k_ade20k-512x512'
    with pytest.raises(SystemExit, match='no model of the zoo.*a checkpoint'):
        main(['test', name])
    with pytest.raises(SystemExit, match='a.png alone: expected a config'):
        main(['predict', name, picture])


def test_a_folder_of_the_same_name_is_no_hindrance(picture):
    Path('demo_ccnet').mkdir()
    assert not main(['predict', 'demo_ccnet', picture])
    Path('demo_ccnet').rmdir()
    Path('demo_ccnet').write_text('model = None')  # a config of the user's
    assert mmseg_attn.find_config('demo_ccnet') == 'demo_ccnet'
    assert not metafiles.is_row('demo_ccnet')


def test_a_damaged_file_is_refused(picture, tmp_path, monkeypatch):
    row = metafiles.find_row('demo_ccnet')
    content = bytearray(row.packaged.read_bytes())
    content[-200] ^= 1
    copy = tmp_path / row.file
    copy.write_bytes(content)
    broken = replace(row, packaged=copy)
    with pytest.raises(UserError, match='is damaged or another file'):
        zoo.find_weights(broken)


def test_download_copies(picture, capsys):
    main(['zoo', 'list', '--dataset', 'drawn'])
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if ' demo_ccnet ' in line)
    assert 'CCNet' in line and 'ours' in line
    main(['zoo', 'download', 'demo_ccnet', '--dest', 'dest'])
    row = metafiles.find_row('demo_ccnet')
    following = f'predict dest/{NAME}.py dest/{row.file} PICTURES'
    said = capsys.readouterr().out
    assert said.endswith(f'Next: python -m mmseg_attn {following}\n')
    assert {path.name for path in Path('dest').iterdir()} == {
        *(row.file, f'{NAME}.py')
    }
    main(['zoo', 'download', 'demo_fcn', 'demo_ccnet', '--dest', 'two'])
    said = capsys.readouterr().out
    assert said.count('\nNext: ') == 2 == len([*Path('two').glob('*.pth')])
    main(['zoo', 'verify', f'dest/{row.file}'])
    assert 'as in the metafile' in capsys.readouterr().out
    main(['predict', f'dest/{NAME}.py', f'dest/{row.file}', picture])
