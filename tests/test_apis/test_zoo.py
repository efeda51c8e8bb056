# Copyright (c) mmseg_attn contributors.
"""The model zoo against a local server with good and bad manners."""

import functools
import hashlib
import http.server
import io
import json
import runpy
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from mmengine.config import Config
from tiny_segmentor import config_text, write_dataset

from mmseg_attn import fetch, metafiles
from mmseg_attn.__main__ import main
from mmseg_attn.apis import zoo
from mmseg_attn.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
NAME = 'tiny_discs'
PAGE = b'<!DOCTYPE html><html>Please log in</html>'


def saved(checkpoint) -> bytes:
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    return stream.getvalue()


def sha256(content) -> str:
    return hashlib.sha256(content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends the server's content as its switches say."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get('Range')
        server.asked.append(asked)
        if server.silence:
            server.silence.wait(10)
            return
        if server.status:
            return self.send_error(server.status.pop())
        content = server.content
        tag = f'"{sha256(content)}"'
        start = 0
        same = self.headers['If-Range'] == tag or not server.obeys
        if server.ranges and asked and same:
            start = int(asked.removeprefix('bytes=').removesuffix('-'))
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header(
                'Content-Range',
                f'bytes {start}-{len(content) - 1}/{len(content)}',
            )
        else:
            self.send_response(200)
        self.send_header('Content-Type', server.type)
        self.send_header('Content-Length', str(len(content) - start))
        if server.tags:
            self.send_header('ETag', tag)
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start : start + cut])

    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def checkpoint(trained):
    """The trained segmentor's weights as a published file."""
    whole = torch.load(trained.checkpoint, weights_only=False)
    return saved({'state_dict': whole['state_dict'], 'meta': {}})


@pytest.fixture
def server(checkpoint):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.content, server.type = checkpoint, 'application/octet-stream'
    server.asked, server.status, server.cuts = [], [], []
    server.silence = None
    server.ranges = server.tags = server.obeys = True
    threading.Thread(
        target=functools.partial(server.serve_forever, 0.01), daemon=True
    ).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def rows(tmp_path, monkeypatch, trained):
    """Write a zoo of one row, and make the package find it."""
    root = tmp_path / 'root'
    (root / 'configs/tiny').mkdir(parents=True)
    (root / 'configs/tiny/part.py').write_text(
        Path(trained.config).read_text()
    )
    config = root / f'configs/tiny/{NAME}.py'
    config.write_text("_base_ = './part.py'\n")
    (root / 'model-index.yml').write_text('Import: [configs/tiny/meta.yaml]')
    monkeypatch.setattr(metafiles, 'package_roots', lambda: [root])
    monkeypatch.setattr(fetch.time, 'sleep', lambda seconds: None)
    monkeypatch.chdir(tmp_path)

    def write(url, **keys):
        row = {
            'Name': NAME,
            'In Collection': 'Tiny',
            'Config': f'configs/tiny/{NAME}.py',
            'Results': {'Dataset': 'Discs', 'Metrics': {'mIoU': 91.5}},
            'Metadata': {'Architecture': ['R-18', 'Tiny']},
            'Weights': url,
            **keys,
        }
        (root / 'configs/tiny/meta.yaml').write_text(
            yaml.safe_dump({'Models': [row]})
        )
        return zoo.find_row(NAME)

    return write


@pytest.fixture
def good(rows, server, checkpoint):
    """The row of the server's file."""
    digest = sha256(checkpoint)
    return rows(
        f'http://127.0.0.1:{server.server_port}/tiny-{digest[:8]}.pth',
        SHA256=digest,
    )


def files(folder='dest'):
    return {path.name for path in Path(folder).iterdir()}


def test_round_trip(good, server, checkpoint, trained, tmp_path, capsys):
    """List, download, verify, and test what came against what was sent."""
    main(['zoo', 'list'])
    listed = capsys.readouterr().out
    assert NAME in listed and '91.50' in listed and '127.0.0.1' in listed
    main(['zoo', 'download', NAME, '--dest', 'dest'])
    assert files() == {good.file, f'{NAME}.py'}
    path = Path('dest', good.file)
    assert path.read_bytes() == checkpoint
    main(['zoo', 'verify', str(path)])
    assert 'as in the metafile' in capsys.readouterr().out
    write_dataset(tmp_path / 'data', 24)
    found = []
    for config, weights in (
        (f'dest/{NAME}.py', path),
        (trained.config, trained.checkpoint),
    ):
        cfg = Config.fromfile(config)
        assert '_base_' not in Path(config).read_text()
        cfg.test_dataloader.dataset.data_root = str(tmp_path / 'data')
        cfg.dump('moved.py')
        found.append(measure('moved.py', weights))
    assert found[0] == found[1]
    assert found[0]['mIoU'] > 80


def measure(config, weights):
    """Run tools/test.py in this process and read its metrics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.runner.runner.collect_env', dict)
        work = Path(f'work_{Path(weights).stem}')
        arguments = ['test.py', config, weights, '--work-dir', work]
        patch.setattr(sys, 'argv', [str(item) for item in arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / 'tools/test.py'), run_name='__main__')
    assert not end.value.code
    (report,) = work.glob('*/*.json')
    metrics = json.loads(report.read_text())
    return {k: v for k, v in metrics.items() if 'time' not in k}


def test_a_good_file_is_not_fetched_again(good, server):
    zoo.download(good, Path('dest'))
    zoo.download(good, Path('dest'))
    assert server.asked == [None]


@pytest.mark.parametrize('ranges', [True, False])
def test_broken_connections_are_taken_up(good, server, checkpoint, ranges):
    server.ranges = ranges
    half = len(checkpoint) // 2
    server.cuts = [half, 1000]
    path, _ = zoo.download(good, Path('dest'))
    assert path.read_bytes() == checkpoint
    later = half + 1000 if ranges else 1000
    assert server.asked == [None, f'bytes={half}-', f'bytes={later}-']
    assert files() == {good.file, f'{NAME}.py'}


def test_a_later_call_goes_on(good, server, checkpoint):
    server.cuts = [5000]
    with pytest.raises(UserError, match='after 5,000 of .*goes on from there'):
        zoo.download(good, Path('dest'), retries=0)
    assert Path(f'dest/{good.file}.part').stat().st_size == 5000
    assert good.file not in files()
    path, _ = zoo.download(good, Path('dest'), retries=0)
    assert path.read_bytes() == checkpoint
    assert server.asked == [None, 'bytes=5000-']


@pytest.mark.parametrize('obeys', [True, False])
def test_a_file_that_changed_is_begun_again(good, server, checkpoint, obeys):
    """With a server that knows If-Range, and with one that does not."""
    server.content = bytes(len(checkpoint))
    server.cuts = [5000]
    with pytest.raises(UserError):
        zoo.download(good, Path('dest'), retries=0)
    server.content = checkpoint
    server.obeys = obeys
    path, _ = zoo.download(good, Path('dest'))
    assert path.read_bytes() == checkpoint
    assert server.asked == [None, 'bytes=5000-'] + [None] * (not obeys)


def test_without_a_tag_nothing_is_put_together(good, server, checkpoint):
    server.tags, server.cuts = False, [5000]
    path, _ = zoo.download(good, Path('dest'))
    assert path.read_bytes() == checkpoint
    assert server.asked == [None, None]


def test_a_complete_part_needs_no_server(good, server, checkpoint):
    """A process that was killed before it could give the file its name."""
    fetch.fetch(good.url, Path('x.part'))
    Path('dest').mkdir()
    for end in ('', '.json'):
        Path(f'x.part{end}').rename(f'dest/{good.file}.part{end}')
    zoo.download(good, Path('dest'))
    assert server.asked == [None]
    assert files() == {good.file, f'{NAME}.py'}


def test_a_busy_server_is_asked_again(good, server):
    server.status = [503, 429]
    zoo.download(good, Path('dest'))
    assert len(server.asked) == 3


def test_a_part_that_is_too_long_is_begun_again(good, server, checkpoint):
    server.cuts = [5000]
    with pytest.raises(UserError):
        zoo.download(good, Path('dest'), retries=0)
    part = Path(f'dest/{good.file}.part')
    part.write_bytes(bytes(len(checkpoint) + 1))
    path, _ = zoo.download(good, Path('dest'))
    assert path.read_bytes() == checkpoint
    assert server.asked[1:] == [f'bytes={len(checkpoint) + 1}-', None]


def test_a_silent_server_is_given_up(good, server):
    server.silence = threading.Event()
    with pytest.raises(UserError, match='timed out'):
        zoo.download(good, Path('dest'), retries=1, timeout=0.1)
    server.silence.set()
    assert len(server.asked) == 2


def truncated(server, content):
    server.cuts = [1000] * 9
    server.ranges = False


def short(server, content):
    """What a broken upload leaves: the length is that of the stump."""
    server.content = content[: len(content) // 2]


def web_page(server, content):
    server.content, server.type = PAGE, 'text/html; charset=utf-8'


def disguised_page(server, content):
    server.content = PAGE


def missing(server, content):
    server.status = [404]


def damaged(server, content):
    server.content = content[:20000] + bytes(64) + content[20064:]


def other_model(server, content):
    state = torch.load(io.BytesIO(content))['state_dict']
    state['decode_head.conv_seg.weight'] = torch.zeros(7, 16, 1, 1)
    server.content = saved({'state_dict': state})


def surplus(server, content):
    state = torch.load(io.BytesIO(content))['state_dict']
    state['neck.weight'] = torch.zeros(1)
    server.content = saved({'state_dict': state})


@pytest.mark.parametrize('known', ['SHA256', 'name', 'nothing'])
@pytest.mark.parametrize(
    'spoil, reason',
    [
        (truncated, 'ended after 1,000 of'),
        (short, 'cut off'),
        (web_page, 'is a web page'),
        (disguised_page, 'is a web page'),
        (missing, 'HTTP 404'),
        (damaged, 'has a wrong sum'),
        (other_model, r'another shape \(first: decode_head.conv_seg.weight'),
        (surplus, r'no place in tiny_discs.py \(first: neck.weight'),
    ],
)
def test_bad_files_never_get_the_name(
    rows, server, checkpoint, spoil, reason, known
):
    """Whether a hash is known or not; the first thing wrong is told."""
    digest = sha256(checkpoint)
    name = f'tiny-{digest[:8]}.pth' if known == 'name' else 'tiny.pth'
    keys = {'SHA256': digest} if known == 'SHA256' else {}
    row = rows(f'http://127.0.0.1:{server.server_port}/{name}', **keys)
    spoil(server, checkpoint)
    unseen = {truncated, web_page, disguised_page, missing}
    if known != 'nothing' and spoil not in unseen:
        reason = f'sha256 .*{digest[:8]}.* damaged|damaged.*{digest[:8]}'
    with pytest.raises(UserError, match=reason):
        zoo.download(row, Path('dest'), retries=2)
    assert row.file not in files()
    server.content, server.type = checkpoint, 'application/octet-stream'
    server.cuts, server.status = [], []
    path, _ = zoo.download(row, Path('dest'))
    assert path.read_bytes() == checkpoint


def test_weights_of_a_name_are_fetched_once(
    good, server, tmp_path, monkeypatch
):
    """They are checked each time, where torch.hub keeps its files."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: tmp_path / 'hub')
    path = zoo.find_weights(good)
    assert path == tmp_path / f'hub/checkpoints/{good.file}'
    assert path.read_bytes() == server.content
    assert zoo.find_weights(good) == path
    assert server.asked == [None]
    path.write_bytes(server.content[:-1])
    with pytest.raises(UserError, match='is damaged or another file'):
        zoo.find_weights(good)


def test_without_a_network(rows):
    row = rows('http://127.0.0.1:9/tiny.pth')
    with pytest.raises(
        UserError, match='127.0.0.1:9 cannot be reached.*put it into /.*dest'
    ):
        zoo.download(row, Path('dest'), retries=1)
    assert files() == {f'{NAME}.py'}


@pytest.mark.parametrize(
    'options', [('--retries', '-1'), ('--timeout', '-3'), ('--timeout', 'nan')]
)
def test_numbers_that_cannot_be_meant(good, server, options):
    with pytest.raises(SystemExit, match='expected 0 or more tries'):
        main(['zoo', 'download', NAME, '--dest', 'dest', '='.join(options)])
    assert files() == {f'{NAME}.py'}


def test_all_names_are_looked_up_first(good, server):
    with pytest.raises(SystemExit, match='no checkpoint of nope'):
        main(['zoo', 'download', NAME, 'nope', '--dest', 'dest'])
    assert server.asked == [] and not Path('dest').exists()


def test_a_file_address(rows, checkpoint, tmp_path):
    (tmp_path / 'tiny.pth').write_bytes(checkpoint)
    row = rows((tmp_path / 'tiny.pth').as_uri())
    path, found = zoo.download(row, Path('dest'))
    assert path.read_bytes() == checkpoint
    assert 'nothing to compare' in found
    row = rows((tmp_path / 'absent.pth').as_uri())
    with pytest.raises(UserError, match='cannot be read'):
        zoo.download(row, Path('dest'))


@pytest.mark.parametrize('end', ['.pth', '.py'])
def test_other_files_of_these_names_are_left_alone(good, server, end):
    name = good.file if end == '.pth' else f'{NAME}.py'
    Path('dest').mkdir()
    Path('dest', name).write_bytes(b'mine')
    with pytest.raises(UserError, match='is there already .*left as'):
        zoo.download(good, Path('dest'))
    assert Path('dest', name).read_bytes() == b'mine'
    assert server.asked == []


def test_no_room(good, monkeypatch):
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr(fetch.shutil, 'disk_usage', lambda folder: full)
    with pytest.raises(UserError, match='0 MiB free.*make room'):
        zoo.download(good, Path('dest'))
    assert files() == {f'{NAME}.py'}


def test_a_name_given_before_publishing_is_no_proof(rows, checkpoint):
    """MMSegmentation's zoo: a hash that agrees is told, one that does not
    is not held against the file."""
    for prefix in zoo.NAMED_BEFORE_PUBLISHING:
        row = rows(f'{prefix}v0.5/tiny-0123abcd.pth')
        Path(row.file).write_bytes(checkpoint)
        assert 'not that of its name' in zoo.check(Path(row.file), row)
    row = rows('https://elsewhere.org/tiny-0123abcd.pth')
    with pytest.raises(UserError, match='its name ends in 0123abcd'):
        zoo.check(Path(row.file), row)


def test_verify(good, checkpoint, capsys):
    Path('mine.pth').write_bytes(checkpoint)
    with pytest.raises(SystemExit, match='say with --config'):
        main(['zoo', 'verify', 'mine.pth'])
    main(['zoo', 'verify', 'mine.pth', '--config', NAME])
    assert f'{sha256(checkpoint)}, with nothing' in capsys.readouterr().out
    other = config_text('data').replace('num_classes=2', 'num_classes=5')
    Path('other.py').write_text(other)
    with pytest.raises(SystemExit, match='another model'):
        main(['zoo', 'verify', 'mine.pth', '--config', 'other.py'])
    Path('mine.pth').write_bytes(checkpoint[:-1000])
    with pytest.raises(SystemExit, match='cut off'):
        main(['zoo', 'verify', 'mine.pth', '--config', NAME])


def test_the_packages_rows(capsys):
    """Each row leads to a config; the filters take beginnings of words."""
    rows = zoo.read_rows()
    assert len({row.name for row in rows}) == len(rows) >= 32
    assert all(row.config.stem == row.name for row in rows)
    assert all(row.config.is_file() and row.miou for row in rows)
    main(['zoo', 'list', '--method', 'CCNET', '--dataset', 'voc'])
    lines = capsys.readouterr().out.splitlines()
    assert sum('_voc12aug-' in line for line in lines) == 4
    assert not any('isanet' in line for line in lines)
    with pytest.raises(SystemExit, match='there are FCN, CCNet, CAANet, '):
        main(['zoo', 'list', '--method', 'resnet'])
    main(['zoo', 'list', '--method', 'sanet'])  # no part of ISANet
    listed = capsys.readouterr().out
    assert 'demo_sanet' in listed and 'isanet' not in listed
    with pytest.raises(SystemExit, match='Did you mean isanet_r50-d8_4xb4'):
        main(['zoo', 'download', 'isanet_r50-d8_4xb4-20k_voc12-512x512'])
