# Copyright (c) mmseg_attn contributors.
"""What is published: nothing but weights and facts, under its own hash."""

import hashlib
import io
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from tiny_training import ROOT, environment, tiny_config, write_dataset

from mmseg_attn.apis import publishing
from mmseg_attn.apis.publishing import Facts, add_to_zoo, slim
from mmseg_attn.apis.zoo import check
from mmseg_attn.engine.pretrained import read_checkpoint
from mmseg_attn.engine.runner import build_runner
from mmseg_attn.errors import UserError

CLASSES = ('ground', 'box', 'bar')
BIAS = 'decode_head.conv_seg.bias'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A config, and a checkpoint with all that a training leaves in it."""
    folder = tmp_path_factory.mktemp('publish')
    cfg = tiny_config(folder / 'data', folder / 'work')
    cfg.dump(str(folder / 'tiny_publish.py'))
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    state = model.state_dict()
    # A view of something large must not take that along.
    state['decode_head.conv_seg.bias'] = torch.randn(10**6)[:3]
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    torch.save(
        {
            'state_dict': state,
            'ema_state_dict': state,
            'optimizer': optimizer.state_dict(),
            'param_schedulers': [{'last_step': 8}],
            'message_hub': {
                'log_scalars': {'loss': HistoryBuffer([1.0], [1])},
                'runtime_info': {'iter': np.int64(8)},
            },
            'meta': {
                'cfg': cfg.pretty_text,
                'seed': 3,
                'experiment_name': 'of no concern',
                'dataset_meta': {
                    'classes': CLASSES,
                    'palette': np.eye(3, dtype=np.int64),
                },
            },
        },
        folder / 'iter_8.pth',
    )
    return folder


def publish(folder, *options, source='iter_8.pth', prefix='out/tiny'):
    """Run the tool in this process; return what it printed or ended with."""
    tool = str(ROOT / 'tools/model_converters/publish_model.py')
    arguments = [tool, folder / source, folder / prefix, *options]
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as printed,
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, 'argv', [str(item) for item in arguments])
        runpy.run_path(tool, run_name='__main__')
    return end.value.code or printed.getvalue()


@pytest.fixture(scope='module')
def published(folder):
    """The file and what was printed of it."""
    out = publish(folder, '--strict-with', folder / 'tiny_publish.py')
    (path,) = (folder / 'out').iterdir()
    return path, out


def test_the_name_is_the_hash_of_what_was_written(published):
    path, out = published
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f'tiny-{digest[:8]}.pth'
    (row,) = yaml.safe_load(out.split('metafile.yaml:\n')[1])
    assert row['SHA256'] == digest
    assert row['Weights'].endswith(f'/{path.name}')
    assert row['Name'] == 'tiny_publish'


def test_torch_alone_loads_it(published):
    """In a process of its own, which has allowed no types."""
    path, _ = published
    code = (
        'import sys, torch; '
        'content = torch.load(sys.argv[1], weights_only=True); '
        'print(sorted(content), sorted(content["meta"])); '
        'assert "mmengine" not in sys.modules'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(path)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "['meta', 'state_dict'] ['cfg', 'dataset_meta', 'mmseg_attn_version']"
    )


def test_weights_and_facts_are_those_of_the_training(folder, published):
    path, _ = published
    source = torch.load(folder / 'iter_8.pth', weights_only=False)
    content = torch.load(path, weights_only=True)
    assert list(content['state_dict']) == list(source['state_dict'])
    for key, value in content['state_dict'].items():
        assert torch.equal(value, source['state_dict'][key])
        assert value.untyped_storage().nbytes() == value.nbytes
    assert content['state_dict']._metadata == source['state_dict']._metadata
    assert content['meta']['cfg'] == source['meta']['cfg']
    assert content['meta']['dataset_meta'] == {
        'classes': list(CLASSES),
        'palette': [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    }
    # The weights, and little else.
    size = sum(v.nbytes for v in content['state_dict'].values())
    assert path.stat().st_size < size + 200_000


def test_the_zoo_takes_it(folder, published):
    path, _ = published
    found = check(path, None, folder / 'tiny_publish.py')
    assert 'begins as its name ends' in found


def test_nothing_is_overwritten(folder, published):
    """The same weights give the same bytes, and so the same name."""
    path, _ = published
    before = path.stat().st_mtime_ns
    out = publish(folder, prefix='out/tiny.pth')
    assert out == f'Error: {path} exists already.'
    assert path.stat().st_mtime_ns == before
    assert list((folder / 'out').iterdir()) == [path]


@pytest.mark.parametrize(
    'case, reason',
    [
        ('model', r'another model: .*another shape \(first: decode_head.conv'),
        (
            'infinite',
            r'not finite, the first is decode_head\.conv_seg\.weight',
        ),
        ('weights', 'has no "state_dict"'),
    ],
)
def test_refused(folder, case, reason):
    content = torch.load(folder / 'iter_8.pth', weights_only=False)
    options = ()
    if case == 'model':
        cfg = tiny_config(folder / 'data', folder / 'work')
        cfg.model.decode_head.num_classes = 4
        cfg.dump(str(folder / 'four.py'))
        options = ('--strict-with', folder / 'four.py')
    elif case == 'infinite':
        content['state_dict']['decode_head.conv_seg.weight'][0, 0] = np.inf
    else:
        content = content['state_dict']
    torch.save(content, folder / f'{case}.pth')
    out = publish(
        folder, *options, source=f'{case}.pth', prefix=f'{case}/tiny'
    )
    assert out.startswith('Error: ') and re.search(reason, out)
    target = folder / case
    assert not target.exists() or not list(target.iterdir())


def test_half_is_for_filters_alone(folder):
    publish(folder, '--half', prefix='half/tiny')
    (path,) = (folder / 'half').iterdir()
    kept = torch.load(path, weights_only=True)['state_dict']
    source = torch.load(folder / 'iter_8.pth', weights_only=False)
    kinds = {True: set(), False: set()}
    for key, value in source['state_dict'].items():
        kinds[value.ndim > 1].add(kept[key].dtype)
        assert torch.equal(kept[key], value.to(kept[key].dtype))
    assert kinds[True] == {torch.float16}
    assert kinds[False] == {torch.float32}


def test_safetensors_hold_the_same(folder, published):
    publish(folder, '--safetensors', prefix='safe/tiny.safetensors')
    (path,) = (folder / 'safe').iterdir()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f'tiny-{digest[:8]}.safetensors'
    one, two = (read_checkpoint(p) for p in (path, published[0]))
    assert one['meta'] == two['meta']
    assert one['state_dict'].keys() == two['state_dict'].keys()
    for key, value in one['state_dict'].items():
        assert torch.equal(value, two['state_dict'][key])
    found = check(path, None, folder / 'tiny_publish.py')
    assert 'begins as its name ends' in found


def test_of_an_averaged_model_the_average_is_published(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / 'data')
    cfg = tiny_config(tmp_path / 'data', tmp_path / 'work')
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.5)]
    runner = build_runner(cfg)
    runner.train()
    (hook,) = (h for h in runner.hooks if isinstance(h, EMAHook))
    publish(tmp_path, source=Path('work/last_checkpoint').read_text())
    (path,) = (tmp_path / 'out').iterdir()
    kept = torch.load(path, weights_only=True)['state_dict']
    last = runner.model.state_dict()
    averaged = hook.ema_model.module.state_dict()
    assert all(torch.equal(kept[key], averaged[key]) for key in kept)
    assert not all(torch.equal(kept[key], last[key]) for key in kept)


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / 'resources/zoo').mkdir(parents=True)
    empty = 'Collections: []\nModels: []\n'
    (tmp_path / 'resources/zoo/metafile.yaml').write_text(empty)
    return tmp_path


def names_and_rows(checkout):
    folder = checkout / 'resources/zoo'
    text = (folder / 'metafile.yaml').read_text()
    names = {path.name for path in folder.iterdir()} - {'metafile.yaml'}
    return names, yaml.safe_load(text)['Models']


def test_a_row_of_the_zoo(folder, checkout, monkeypatch):
    """Written once the files score what was printed; a later one replaces
    it."""
    monkeypatch.setattr(
        publishing, 'validate', lambda *_: {'mIoU': np.float64(50.06)}
    )
    facts = Facts('Boxes', 'R-18', {2: 50.0, 0: 51.0, 1: 49.0}, 'a minute')
    config = str(folder / 'tiny_publish.py')

    def add(name, facts=facts):
        source = torch.load(folder / 'iter_8.pth', weights_only=False)
        source['state_dict'][BIAS] += 1.0
        content = slim(source, 'it', half=True)
        return add_to_zoo(checkout, content, name, config, facts)

    row = add('one')
    names, rows = names_and_rows(checkout)
    assert rows == [row]
    assert row['Name'] == 'tiny_publish' and row['Short Name'] == 'one'
    assert row['Results']['Metrics'] == {'mIoU': 50.0}
    assert list(row['Seeds']) == [2, 0, 1]
    assert row['Command'].endswith('tiny_publish --cfg-options '
                                   'randomness.seed=2')  # fmt: skip
    for key in ('Weights', 'Safetensors'):
        path = checkout / row[key]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.name.startswith(f'one-{digest[:8]}.')
        assert digest in (row['SHA256'], row['Safetensors SHA256'])
    assert names == {Path(row[key]).name for key in ('Weights', 'Safetensors')}
    # Another seed is published instead: other names, and nothing is left.
    again = add('two')
    names, rows = names_and_rows(checkout)
    assert rows == [again] and len(names) == 2
    assert all(name.startswith('two-') for name in names)
    wrong = Facts('Boxes', 'R-18', {0: 50.2}, 'a minute')
    with pytest.raises(UserError, match='50.06, expected 50.20 as --seeds'):
        add('three', wrong)
    assert names_and_rows(checkout) == (names, rows)


def test_zoo_wants_all_facts(folder):
    out = publish(folder, '--zoo', '--strict-with', folder / 'tiny_publish.py')
    assert out == 'Error: --zoo needs --data.'
