# Copyright (c) mmseg_attn contributors.
import fcntl
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_segmentor import write_dataset

from mmseg_attn.__main__ import main
from mmseg_attn.errors import UserError
from mmseg_attn.metafiles import method_titles
from mmseg_attn.trials import comparison as command
from mmseg_attn.trials import trial
from mmseg_attn.trials.columns import metric_columns
from mmseg_attn.trials.differences import disagreement, most_different
from mmseg_attn.trials.full import METHODS
from mmseg_attn.trials.plots import draw_iou, draw_plots
from mmseg_attn.trials.report import Report, Row
from mmseg_attn.trials.trial import Data, Result

ROOT = Path(__file__).parents[2]


def arguments(root, *more):
    return [
        *('compare', '--images', f'{root}/images', '--masks', f'{root}/masks'),
        *('--work-dir', f'{root}/work', '--methods', 'fcn', 'ccnet-r2'),
        *('--device', 'cpu', '--iters', '2', '--seeds', '2', '--jobs', '2'),
        *map(str, more),
    ]


def start(root, *more):
    return subprocess.Popen(
        [sys.executable, '-m', 'mmseg_attn', *arguments(root, *more)],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's job in the background ignores it, and so would this.
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),
    )


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def is_free(lock):
    with open(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def read_runs(work):
    return {
        path.stem: json.loads(path.read_text())
        for path in sorted(work.glob('*_seed-*.json'))
    }


@pytest.fixture(scope='module')
def compared(tmp_path_factory):
    """A comparison that was killed and then gone on with."""
    root = tmp_path_factory.mktemp('compared')
    write_dataset(root, 5)
    killed = start(root)
    work = root / 'work'
    wait_for(lambda: list(work.glob('*_seed-*.json')) or killed.poll())
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    kept = {path: path.stat() for path in work.glob('*_seed-*.json')}
    assert 0 < len(kept) < 4
    # What the killed command had started ends by itself.
    wait_for(lambda: is_free(work / 'comparison.lock'))
    resumed = start(root)
    out, err = resumed.communicate()
    assert resumed.returncode == 0, err
    return root, kept, out, err


@pytest.mark.slow
def test_finished_runs_are_kept_after_a_kill(compared):
    root, kept, _, err = compared
    assert f'4 trainings, of which {len(kept)} are done' in err
    assert f'{4 - len(kept)} of {4 - len(kept)}: ' in err
    for path, stat in kept.items():
        assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert set(read_runs(root / 'work')) == {
        f'{method}_seed-{seed}'
        for method in ('fcn', 'ccnet-r2')
        for seed in (0, 1)
    }


@pytest.mark.slow
def test_tables_hold_the_numbers_of_the_runs(compared):
    root, _, out, _ = compared
    runs = read_runs(root / 'work')
    content = json.loads((root / 'work/comparison.json').read_text())
    assert list(content['methods']) == ['fcn', 'ccnet-r2']
    assert content['budget']['iterations'] == 2
    assert content['budget']['threads'] >= 1
    text = (root / 'work/comparison.md').read_text()
    titles = re.search(r'\| method \|(.*)\|', text)[1].split('|')
    place = {title.strip(): number for number, title in enumerate(titles)}
    scores = {}
    for method, found in content['methods'].items():
        mious = [runs[f'{method}_seed-{s}']['metrics']['mIoU'] for s in (0, 1)]
        scores[method] = mious
        assert [found['runs'][s]['metrics']['mIoU'] for s in '01'] == mious
        assert found['mean']['mIoU'] == pytest.approx(statistics.mean(mious))
        assert found['std']['mIoU'] == pytest.approx(statistics.stdev(mious))
    for method, found in content['methods'].items():
        cells, seeds = (
            [cell.strip() for cell in line.strip('|').split('|')][1:]
            for line in text.splitlines()
            if line.startswith(f'| {found["title"]} |')
        )
        both = [runs[f'{method}_seed-{s}'] for s in (0, 1)]
        assert seeds == [f'{run["metrics"]["mIoU"]:.1f}' for run in both]
        mean, std = found['mean']['mIoU'], found['std']['mIoU']
        assert cells[place['mean']] == f'{mean:.1f} ± {std:.1f}'
        pairs = zip(scores[method], scores['fcn'], strict=True)
        one, two = (ours - theirs for ours, theirs in pairs)
        gain, error = (one + two) / 2, abs(one - two) / 2
        expected = '' if method == 'fcn' else f'{gain:+.1f} ± {error:.1f}'
        assert cells[place['to FCN']] == expected
        assert cells[place['parameters']] == f'{both[0]["parameters"]:,}'
        assert cells[place['GFLOPs']] == f'{both[0]["gflops"]:.3f}'
    for word in ('FCN', 'CCNet, 2 loops', 'seed 1', '±'):
        assert word in out
    fcn, ccnet = runs['fcn_seed-0'], runs['ccnet-r2_seed-0']
    assert fcn['parameters'] < ccnet['parameters']
    assert fcn['gflops'] < ccnet['gflops']
    assert 100 < fcn['peak_memory_mb'] < 8000


@pytest.mark.slow
def test_plots(compared):
    root, *_ = compared
    for name in ('miou', 'miou_seconds', 'cost', 'differences'):
        plot = cv2.imread(str(root / f'work/{name}.png'))
        assert min(plot.shape[:2]) > 200
        assert len(np.unique(plot.reshape(-1, 3), axis=0)) > 50


@pytest.fixture
def copied(compared, tmp_path):
    """The comparison, to be spoilt."""
    shutil.copytree(compared[0], tmp_path / 'copy')
    return tmp_path / 'copy'


def refused(root, *more):
    """Run in this process; return the message that it ends with."""
    before = {p: p.read_bytes() for p in root.rglob('*') if p.is_file()}
    with pytest.raises(SystemExit) as caught:
        main(arguments(root, *more))
    assert before == {p: p.read_bytes() for p in before}
    return caught.value.code


@pytest.mark.slow
def test_changed_settings_are_refused(copied):
    message = refused(copied, '--iters', 3)
    assert message.startswith(
        'Error: FCN, seed 0, was run with other settings'
    )
    assert re.search(r'config\.param_scheduler.* was 2, is 3', message)
    assert 'another --work-dir' in message
    assert 'jobs was 2, is 1' in refused(copied, '--jobs', 1)
    mask = next((copied / 'masks').iterdir())
    cv2.imwrite(str(mask), 1 - cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE))
    assert 'the masks or the split are not the same' in refused(copied)


@pytest.mark.slow
def test_broken_result_is_done_again(copied, capfd):
    path = copied / 'work/fcn_seed-1.json'
    before = json.loads(path.read_text())
    path.write_text(path.read_text()[:100])
    others = {
        p: p.read_bytes()
        for p in (copied / 'work').glob('*_seed-*.json')
        if p != path
    }
    assert not main(arguments(copied))
    said = capfd.readouterr().err
    assert 'fcn_seed-1.json is broken: the run is done again' in said
    assert '4 trainings, of which 3 are done' in said
    after = json.loads(path.read_text())
    assert after['settings'] == before['settings']
    # The seed decides.
    assert after['metrics'] == before['metrics']
    assert others == {p: p.read_bytes() for p in others}


@pytest.mark.slow
def test_a_failure_leaves_the_other_results(copied, monkeypatch, capfd):
    work = copied / 'work'
    (work / 'ccnet-r2_seed-0.json').unlink()

    def spoilt(method, *rest):
        cfg = trial_config(method, *rest)
        if method == 'ccnet-r2':
            cfg.model.decode_head.type = 'NoSuchHead'
        return cfg

    trial_config = trial.trial_config
    monkeypatch.setattr(trial, 'trial_config', spoilt)
    with pytest.raises(SystemExit, match='1 of 2 .* failed.*NoSuchHead'):
        main(arguments(copied, '--seeds', 1))
    content = json.loads((work / 'comparison.json').read_text())
    assert list(content['methods']) == ['fcn']
    assert content['methods']['fcn']['std'] == {}
    monkeypatch.undo()
    assert not main(arguments(copied, '--seeds', 1))
    content = json.loads((work / 'comparison.json').read_text())
    assert list(content['methods']) == ['fcn', 'ccnet-r2']
    assert '2 trainings, of which 1 are done' in capfd.readouterr().err


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--methods', 'fcn', 'nonet'], 'unknown method nonet; there are'),
        (['--seeds', '0'], 'got --seeds 0, expected at least 1'),
        (['--jobs', '0'], 'got --jobs 0, expected at least 1'),
        (['--images', 'taken'], 'both --images and --masks'),
        (['--classes', 'a,b'], '--classes is for --images and --masks'),
        (['--full'], '--full is for --images and --masks'),
        (['--crop', '64'], '--scratch, --crop and --batch-size need --full'),
        (['--camvid', 'none'], 'expected images/train and images/val'),
        (['--work-dir', 'taken'], 'taken is not empty and holds no compar'),
        (['--work-dir', 'taken/file'], 'cannot write to the work folder'),
        (['--work-dir', 'locked'], 'a comparison works in locked'),
    ],
)
def test_mistakes_end_as_one_line(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    for name in ('taken/file', 'locked/comparison.lock'):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text('kept')
    with open('locked/comparison.lock') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match=message) as caught:
            main(['compare', *args])
    assert caught.value.code.startswith('Error: ')
    assert (tmp_path / 'taken/file').read_text() == 'kept'
    assert not list((tmp_path / 'locked').glob('data*'))


@pytest.mark.slow
def test_stopping_ends_all_processes(tmp_path):
    write_dataset(tmp_path, 5)
    work = tmp_path / 'work'
    process = start(tmp_path, '--iters', 10000)
    wait_for(lambda: list(work.glob('*.log')) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'Stopped. The same command goes on from here.' in err
    assert is_free(work / 'comparison.lock')
    assert not read_runs(work)


def test_a_stop_before_all_are_started(tmp_path, monkeypatch):
    """The first training runs by then: nothing may wait for its end."""
    write_dataset(tmp_path, 5)
    running, killed = threading.Event(), threading.Event()

    def run_trial(name, config, environment, progress, on_start, inherited):
        on_start(types.SimpleNamespace(kill=killed.set))
        running.set()
        assert killed.wait(20)
        raise UserError(name)

    class Interrupted(command.ThreadPoolExecutor):
        def submit(self, *args):
            if running.is_set():
                raise KeyboardInterrupt
            future = super().submit(*args)
            assert running.wait(20)
            return future

    monkeypatch.setattr(trial, 'run_trial', run_trial)
    monkeypatch.setattr(command, 'ThreadPoolExecutor', Interrupted)
    with pytest.raises(SystemExit, match='130'):
        main(arguments(tmp_path))
    assert killed.is_set()


@pytest.mark.parametrize('pattern', [trial.SCENES, trial.PICTURES])
def test_methods_are_those_with_configs(pattern):
    found = command.methods(pattern)
    variants, folders = ['fcn', 'ccnet-r1', 'ccnet-r2'], list(method_titles())
    assert found[: len(variants)] == variants
    others = found[len(variants) :]
    assert others == sorted(others, key=folders.index)
    assert command.title_of('ccnet-r2') == 'CCNet, 2 loops'
    assert command.title_of('eanet') == 'Efficient Attention'
    for method in found:
        assert (ROOT / 'configs/demo' / pattern.format(method)).is_file()


def result(miou, **other):
    return Result({'mIoU': miou, **other}, 1000, 0.5, 10.0, 500.0)


def test_differences_are_paired_by_seed(tmp_path):
    """3 and 5 above, where each of the two varies by more than that."""
    data = Data(tmp_path, '{}_x-8x8.py', {}, 'floor', [])
    rows = [
        Row('x', 'X', {0: result(40), 1: result(60)}),
        Row('y', 'Y', {1: result(65), 0: result(43)}),
        Row('z', 'Z', {1: result(61)}),
    ]
    report = Report(data, {'mIoU': 'all'}, rows, {})
    x, y, z = (row[2] for row in report.main_table()[2:])
    assert (x, y, z) == ('', '+4.0 ± 1.0', '+11.0')


def test_report_of_gaps(tmp_path):
    """A seed that failed, a class that was not there."""
    data = Data(tmp_path, '{}_x-8x8.py', {'mIoU': 50}, 'floor', [])
    rows = [
        Row('x', 'X', {0: result(60), 2: result(64, **{'mIoU a': 70})}),
        Row('y', 'Y', {1: result(55)}),
    ]
    budget = dict(
        iterations=1,
        batch_size=1,
        seeds=3,
        device='cpu',
        threads=1,
        jobs=1,
        torch='2',
        mmseg_attn='0',
    )
    groups = {name: [name] for name in 'abcdefg'}
    (tmp_path / 'dataset.json').write_text(json.dumps({'groups': groups}))
    report = Report(data, {'mIoU a': 'a', 'mIoU': 'all'}, rows, budget)
    # Too many for columns.
    assert metric_columns(data) == {'mIoU': 'mean'}
    assert report.classes_table()[:3] == [
        ['class', 'X', 'Y'],
        ['a', '70.0', '-'],
        ['b', '-', '-'],
    ]
    costs = ['1,000', '0.500', '10', '500']
    assert report.main_table()[1:] == [
        ['floor', '', '50.0', '', '', '', '', ''],
        ['X', '70.0', '62.0 ± 2.8', '', *costs],
        ['Y', '', '55.0', '-7.0', *costs],
    ]
    assert report.seeds_table() == [
        ['mIoU', 'seed 0', 'seed 1', 'seed 2'],
        ['X', '60.0', '', '64.0'],
        ['Y', '', '55.0', ''],
    ]
    report.write(tmp_path)
    draw_plots(report, tmp_path)
    assert len(list(tmp_path.iterdir())) == 6
    content = json.loads((tmp_path / 'comparison.json').read_text())
    assert content['methods']['x']['mean']['mIoU a'] == 70
    assert re.search(
        r'\| a +\| +70.0 \| +- \|', (tmp_path / 'comparison.md').read_text()
    )


def test_one_seed_is_called_one(tmp_path):
    """No table of seeds, no mean, and a word on it in table and plot."""
    (tmp_path / 'dataset.json').write_text(json.dumps({'groups': {}}))
    data = Data(tmp_path, '{}_x-8x8.py', {}, 'floor', [])
    budget = dict.fromkeys(('device', 'torch', 'mmseg_attn'), 'x')
    budget |= dict.fromkeys(('iterations', 'batch_size', 'seeds'), 1)
    budget |= dict(jobs=1, threads=1)
    rows = [Row(m, m, {0: result(60)}) for m in 'xy']
    report = Report(data, {'mIoU': 'all'}, rows, budget)
    assert report.seeds_table() == []
    assert any('of one seed' in note for note in report.notes())
    assert not any('deviation' in note for note in report.notes())
    figure = draw_iou(report, dict.fromkeys('xy', ('black', 'o')))
    assert figure.get_supxlabel().startswith('One seed')
    rows[0].results[1] = result(62)
    assert len(report.seeds_table()) == 3
    assert any('deviation' in note for note in report.notes())
    figure = draw_iou(report, dict.fromkeys('xy', ('black', 'o')))
    assert figure.get_supxlabel().startswith('Bar: mean')


def test_pictures_on_which_predictions_differ():
    mask = np.array([[0, 1, 255, 0]])
    same = np.array([[0, 0, 0, 0]])
    other = np.array([[0, 1, 1, 0]])
    assert disagreement([same, same], mask) == 0
    assert disagreement([same, other], mask) == pytest.approx(1 / 3)
    assert disagreement([same, same, other], mask) == pytest.approx(1 / 3)
    assert disagreement([same, other], np.full((1, 4), 255)) == 0
    assert most_different([0.1, 0.3, 0.2]) == [1, 2, 0]
    shares = np.zeros(100)
    shares[[10, 11, 12, 50]] = 0.9, 1.0, 0.8, 0.5
    assert most_different(shares)[:2] == [11, 50]


@pytest.fixture
def full(tmp_path):
    """Pictures for a comparison with a whole backbone."""
    write_dataset(tmp_path, 5)
    folders = tmp_path / 'images', tmp_path / 'masks'
    return trial.prepare_data(
        tmp_path / 'data',
        trial.Setting(*folders, 'cpu', full='r18', scratch=True, crop=64),
        0,
    )


def test_a_full_comparison_differs_in_the_head_alone(full, tmp_path):
    assert metric_columns(full) == {
        'mIoU background': 'background',
        'mIoU foreground': 'foreground',
        'mIoU': 'mean',
    }
    assert (full.size, full.start()) == ('64x64', 'on r18 from random weights')
    (picture, mask), *_ = full.validation_files()
    assert picture.parent == tmp_path / 'images' and mask.is_file()
    configs = {}
    for method in METHODS:
        cfg = trial.trial_config(method, full, tmp_path / method, 3, 7)
        assert cfg.randomness.seed == 3
        assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 7
        configs[method] = cfg.to_dict()
        configs[method].pop('work_dir')
    heads = {m: c['model'].pop('decode_head') for m, c in configs.items()}
    assert len({str(head) for head in heads.values()}) == len(METHODS)
    assert heads['fcn']['type'] == 'FCNHead'
    for method in ('ccnet', 'eanet', 'lanet'):  # their heads alone
        assert configs[method] == configs['fcn']


@pytest.mark.slow
def test_a_full_comparison(tmp_path, capfd):
    write_dataset(tmp_path, 5)
    words = [
        *('compare', '--full', 'r18', '--scratch', '--crop', '64'),
        *('--images', f'{tmp_path}/images', '--masks', f'{tmp_path}/masks'),
        *('--work-dir', f'{tmp_path}/work', '--methods', 'fcn', 'ccnet'),
        *('--device', 'cpu', '--iters', '2', '--seeds', '1'),
        *('--batch-size', '2'),
    ]
    main(words)
    text = (tmp_path / 'work/comparison.md').read_text()
    assert 'on r18 from random weights: 2 iterations of 2 pictures' in text
    assert (tmp_path / 'work/differences.png').is_file()
    capfd.readouterr()
    main(words)  # all are done, and known to be the same
    said = capfd.readouterr()
    assert 'of which 2 are done' in said.err
    assert '--backbone r18 --scratch' in said.out
    picture = next((tmp_path / 'images').iterdir())
    cv2.imwrite(str(picture), 255 - cv2.imread(str(picture)))
    with pytest.raises(SystemExit, match='pictures, the masks or the split'):
        main(words)
