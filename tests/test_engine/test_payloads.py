# Copyright (c) mmseg_attn contributors.
"""No way in runs what is in a file: five kinds of pickle by thirteen ways."""

import functools
import http.server
import io
import json
import os
import pickle
import runpy
import sys
import tarfile
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.runner.checkpoint import CheckpointLoader
from tiny_segmentor import config_text, picture, write_dataset
from torch import nn

from mmseg_attn.__main__ import main
from mmseg_attn.configs import load_config
from mmseg_attn.engine import pretrained
from mmseg_attn.errors import UserError, one_line_errors

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


class Code:
    """Calls a function with an argument when it is unpickled."""

    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


def saved(content, zipped=True):
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def payload(kind, marker):
    """The bytes of a checkpoint that makes the file ``marker``."""
    system = Code(os.system, f'touch {marker}')
    evaluated = Code(eval, f'open({str(marker)!r}, "w").close()')
    executed = Code(exec, f'open({str(marker)!r}, "w").close()')
    weights = {'backbone.conv1.weight': torch.ones(3)}
    if kind == 'beside the weights':
        return saved({'state_dict': weights, 'extra': system})
    if kind == 'among the weights':
        # In the format before zip, and where torch hands on an attribute.
        weights = OrderedDict(weights, bias=evaluated)
        return saved({'state_dict': weights}, zipped=False)
    if kind == 'tar':
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode='w') as archive:
            for name in ('sys_info', 'storages', 'tensors', 'pickle'):
                entry = tarfile.TarInfo(name)
                content = pickle.dumps(system)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return stream.getvalue()
    if kind == 'optimizer and meta':
        return saved(
            {
                'state_dict': weights,
                'optimizer': {'state': {0: executed}, 'param_groups': []},
                'meta': {'iter': 1, 'dataset_meta': executed},
            }
        )
    array = np.empty(2, dtype=object)
    array[:] = [system, evaluated]
    return saved({'state_dict': weights, 'meta': {'palette': array}})


KINDS = (
    'beside the weights',
    'among the weights',
    'tar',
    'optimizer and meta',
    'array of objects',
)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """A config with its data, and a picture."""
    root = tmp_path_factory.mktemp('tiny')
    write_dataset(root / 'data', 2)
    config = root / 'tiny.py'
    config.write_text(config_text(root / 'data', iters=1))
    cv2.imwrite(str(root / 'picture.png'), picture(0)[0])
    return root


@pytest.fixture
def place(tmp_path, tiny, monkeypatch):
    """Where a payload lies, and its addresses."""
    folder = tmp_path / 'files'
    folder.mkdir()
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=folder
    )
    handler.func.log_message = lambda *args: None
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(
        target=functools.partial(server.serve_forever, 0.01), daemon=True
    )
    thread.start()
    url = f'http://127.0.0.1:{server.server_port}/evil.pth'
    home = tmp_path / 'mmengine'
    home.mkdir()
    (home / 'open_mmlab.json').write_text(json.dumps({'evil': url}))
    monkeypatch.setenv('MMENGINE_HOME', str(home))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.chdir(tmp_path)
    yield SimpleNamespace(
        file=folder / 'evil.pth',
        url=url,
        config=tiny / 'tiny.py',
        picture=tiny / 'picture.png',
        marker=tmp_path / 'marker',
        downloads=tmp_path / 'torch' / 'hub' / 'checkpoints',
    )
    server.shutdown()
    server.server_close()


@pytest.fixture
def run_tool(monkeypatch):
    """Run a tool as its own program, in this process."""

    def run(name, *arguments):
        path = ROOT / 'tools' / f'{name}.py'
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name='__main__')

    return run


def command(*arguments):
    sys.exit(main([str(argument) for argument in arguments]))


def train(tool, place, *options):
    work = ('--work-dir', place.marker.parent / 'work')
    tool('train', place.config, *work, *options)


def init_cfg(place, address):
    key = 'model.backbone.init_cfg'
    return (
        '--cfg-options',
        f'{key}.type=Pretrained',
        f'{key}.checkpoint={address}',
    )


WAYS = {
    'predict': lambda tool, at: command(
        'predict', '--device', 'cpu', at.config, at.file, at.picture
    ),
    'predict, URL': lambda tool, at: command(
        'predict', '--device', 'cpu', at.config, at.url, at.picture
    ),
    'test': lambda tool, at: tool('test', at.config, at.file),
    'test, URL': lambda tool, at: tool('test', at.config, at.url),
    'worst': lambda tool, at: command(
        'worst', at.config, at.file, '--split', 'test', '--out', 'worst'
    ),
    'attention': lambda tool, at: command(
        'attention', at.config, at.file, at.picture,
        '--pixel', 3, 3, '--out', 'attention.png',
    ),
    'zoo verify': lambda tool, at: command(
        'zoo', 'verify', at.file, '--config', at.config
    ),
    'load_from': lambda tool, at: train(
        tool, at, '--cfg-options', f'load_from={at.file}'
    ),
    'load_from, URL': lambda tool, at: train(
        tool, at, '--cfg-options', f'load_from={at.url}'
    ),
    '--resume': lambda tool, at: train(tool, at, '--resume', at.file),
    'init_cfg': lambda tool, at: train(tool, at, *init_cfg(at, at.file)),
    'init_cfg, URL': lambda tool, at: train(tool, at, *init_cfg(at, at.url)),
    'open-mmlab': lambda tool, at: train(
        tool, at, *init_cfg(at, 'open-mmlab://evil')
    ),
    'model.pretrained': lambda tool, at: train(
        tool, at, '--cfg-options', f'model.pretrained={at.file}'
    ),
    'publish_model': lambda tool, at: tool(
        'model_converters/publish_model', at.file, 'published'
    ),
    'converter': lambda tool, at: tool(
        'model_converters/ccnet', at.file, 'converted.pth'
    ),
}  # fmt: skip


WAYS_WITH_CONFIG = {
    'predict': lambda tool, at, own: command(
        'predict', '--device', 'cpu', own, at.file, at.picture
    ),
    'train': lambda tool, at, own: tool('train', own),
    'zoo verify': lambda tool, at, own: command(
        'zoo', 'verify', at.file, '--config', own
    ),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('way', WAYS)
def test_no_way_in_runs_it(way, kind, place, run_tool):
    place.file.write_bytes(payload(kind, place.marker))
    with pytest.raises(SystemExit) as ended:
        WAYS[way](run_tool, place)
    message = ended.value.code
    assert not place.marker.exists()
    assert isinstance(message, str), message
    assert message.startswith('Error: checkpoint '), message
    assert 'could run code' in message or 'cannot be loaded safely' in message
    assert '\n' not in message
    # What is refused does not get a name where others would find it.
    assert not list(place.downloads.glob('*'))


@pytest.mark.parametrize('way', ['predict', 'train', 'zoo verify'])
@pytest.mark.parametrize('ending', ['.pkl', '.yaml'])
def test_weights_of_classes_run_nothing(way, ending, place, tiny, run_tool):
    """mmseg would unpickle the one, and build what the other names."""
    evil = Code(os.system, f'touch {place.marker}')
    text = yaml.dump(evil) if ending == '.yaml' else pickle.dumps(evil)
    path = place.file.with_suffix(ending)
    place.file.write_bytes(saved({'state_dict': {'a': torch.ones(1)}}))
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    own = place.marker.with_name('own.py')
    loss = dict(type='CrossEntropyLoss', class_weight=str(path))
    model = dict(decode_head=dict(loss_decode=loss))
    own.write_text(f'_base_ = {str(place.config)!r}\nmodel = {model}\n')
    with pytest.raises(SystemExit) as ended:
        WAYS_WITH_CONFIG[way](run_tool, place, own)
    assert f'class_weight is {str(path)!r}' in ended.value.code
    assert not place.marker.exists()


@pytest.mark.parametrize('kind', KINDS)
def test_each_of_them_would_run(kind, tmp_path):
    """Otherwise the tests above could not fail."""
    path = tmp_path / 'evil.pth'
    path.write_bytes(payload(kind, tmp_path / 'marker'))
    try:
        torch.load(path, weights_only=False)
    except Exception:
        assert kind == 'tar'  # which is not a whole one
    assert (tmp_path / 'marker').exists()


def test_mmengine_itself_loads_through_here(place):
    """Whatever a host loads, in whatever way it spells the place."""
    place.file.write_bytes(payload(KINDS[0], place.marker))
    places = [str(place.file), place.url]
    places += [f'{name}://evil' for name in ('open-mmlab', 'openmmlab')]
    for name in places:
        with pytest.raises(UserError, match='could run code'):
            CheckpointLoader.load_checkpoint(name)
    for name in ('pavi://evil', 's3://evil', 'x:petrel://evil', 'ftp://evil'):
        with pytest.raises(UserError, match='cannot be loaded: expected'):
            CheckpointLoader.load_checkpoint(name)
    with pytest.raises(UserError, match='knows no weights.*resnet50_v1c'):
        CheckpointLoader.load_checkpoint('open-mmlab://resnet50_v1cc')
    with pytest.raises(UserError, match='mmcls:// knows no weights'):
        CheckpointLoader.load_checkpoint('mmcls://evil')
    assert not place.marker.exists()


@pytest.mark.parametrize('way', ['file', 'URL', 'open-mmlab'])
@pytest.mark.parametrize('form', ['zip', 'before zip', 'torch 0.3'])
def test_weights_of_each_format_still_load(way, form, place):
    """Those that our configs name are of these formats.

    MIT's were written by torch 0.3 or 0.4: tensors of float storages in an
    ordered dict, or parameters.
    """
    weight = torch.arange(4.0)
    weights = OrderedDict(conv1=nn.Parameter(weight), bn1=weight + 1)
    if form == 'torch 0.3':
        weights = OrderedDict(conv1=_Old(weight), bn1=_Old(weight + 1))
    place.file.write_bytes(saved(weights, zipped=form == 'zip'))
    name = {
        'file': place.file,
        'URL': place.url,
        'open-mmlab': 'open-mmlab://evil',
    }[way]
    for _ in range(2):
        found = CheckpointLoader.load_checkpoint(str(name), 'cpu')
        assert torch.equal(found['conv1'].detach(), weight)
        assert torch.equal(found['bn1'], weight + 1)
        if way != 'file':  # and then from where torch.hub would keep it
            (kept,) = place.downloads.iterdir()
            assert kept.name == 'evil.pth'
            place.file.unlink(missing_ok=True)


class _Old:
    """Pickled as torch 0.3 did a tensor."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        storage = self.tensor.storage()
        size, stride = tuple(self.tensor.size()), self.tensor.stride()
        return torch._utils._rebuild_tensor, (storage, 0, size, stride)


def test_names_of_torchvision_and_mmcls_are_looked_up(place, monkeypatch):
    """mmcls names whole classifiers, of which the backbone is wanted."""
    weights = {'backbone.conv1': torch.ones(2), 'head.fc': torch.ones(3)}
    place.file.write_bytes(saved({'state_dict': weights}))
    for name in ('torchvision', 'mmcls'):
        monkeypatch.setattr(
            f'mmengine.runner.checkpoint.get_{name}_models',
            lambda: {'net': place.url},
        )
        content = CheckpointLoader.load_checkpoint(f'{name}://net')
        found = list(content['state_dict'])
        whole = name == 'torchvision'
        assert found == (list(weights) if whole else ['conv1'])


def test_processes_of_one_training_download_once(place, monkeypatch):
    place.file.write_bytes(saved({'weight': torch.ones(3)}))
    asked = []

    def fetch(url, part):
        asked.append(url)
        time.sleep(0.2)  # the others come meanwhile
        part.write_bytes(place.file.read_bytes())

    monkeypatch.setattr(pretrained, 'fetch', fetch)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(pretrained.read_checkpoint, [place.url] * 4))
    assert [content['weight'].sum() for content in found] == [3] * 4
    assert asked == [place.url]


def test_an_earlier_download_that_is_damaged_is_named(place):
    place.file.write_bytes(saved({'weight': torch.ones(3)}))
    place.downloads.mkdir(parents=True)
    kept = place.downloads / 'evil.pth'
    kept.write_bytes(place.file.read_bytes()[:-30])
    with pytest.raises(UserError, match='cut off.*remove the file') as error:
        CheckpointLoader.load_checkpoint(place.url)
    assert str(kept) in str(error.value)
    kept.unlink()
    assert CheckpointLoader.load_checkpoint(place.url)


UNSAFE_YAML = {
    'function': "a: 1\nb: !!python/object/apply:os.system ['touch {}']\n",
    'new': "b: !!python/object/new:os.system ['touch {}']\n",
    'name': 'b: !!python/name:os.system\n# {}\n',
    'module': 'b: !!python/module:os\n# {}\n',
}


@pytest.mark.parametrize('kind', UNSAFE_YAML)
@pytest.mark.parametrize('way', ['itself', 'base of YAML', 'base of Python'])
def test_yaml_is_read_as_data(kind, way, tmp_path):
    marker = tmp_path / 'marker'
    bad = tmp_path / 'bad.yaml'
    bad.write_text(UNSAFE_YAML[kind].format(marker))
    config = {
        'itself': bad,
        'base of YAML': tmp_path / 'config.yml',
        'base of Python': tmp_path / 'config.py',
    }[way]
    if way == 'base of YAML':
        config.write_text('_base_: ./bad.yaml\n')
    elif way == 'base of Python':
        config.write_text("_base_ = './bad.yaml'\n")
    with pytest.raises(SystemExit) as ended, one_line_errors():
        load_config(config)
    assert not marker.exists()
    assert str(bad) in ended.value.code
    assert 'could run code; expected plain values' in ended.value.code
    assert f'line {2 if kind == "function" else 1}' in ended.value.code


def test_yaml_that_mmengine_wrote_is_read(tmp_path, tiny):
    """It writes tuples with a tag of their own."""
    cfg = load_config(tiny / 'tiny.py')
    cfg.dump(str(tmp_path / 'tiny.yaml'))
    assert '!!python/tuple' in (tmp_path / 'tiny.yaml').read_text()
    found = load_config(tmp_path / 'tiny.yaml')
    assert found.to_dict() == cfg.to_dict()
