# Copyright (c) mmseg_attn contributors.
"""Losses that become NaN, and what a kill leaves behind."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from tiny_training import losses, tiny_config, write_dataset

from mmseg_attn.engine.finite import not_finite
from mmseg_attn.engine.resume import find_latest
from mmseg_attn.engine.runner import build_runner
from mmseg_attn.engine.safe_checkpoint import (
    AtomicLocalBackend,
    SafeCheckpointHook,
)
from mmseg_attn.errors import UserError


class Killed(BaseException):
    """What no handler catches, as SIGKILL."""


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp('data') / 'data')


class Spoil(Hook):
    """Makes the loss of one iteration, or a weight after it, not finite."""

    def __init__(self, iteration, what):
        self.iteration, self.what = iteration, what

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration and self.what == 'loss':
            for sample in data_batch['inputs']:
                sample.data = torch.full_like(sample, 1).float() * torch.nan

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        if runner.iter + 1 == self.iteration and self.what != 'loss':
            tensors = dict(runner.model.named_parameters())
            tensors |= dict(runner.model.named_buffers())
            tensors[self.what].data.view(-1)[0] = torch.inf


def spoiled(data, work_dir, iteration, what, **options):
    runner = build_runner(tiny_config(data, work_dir, **options))
    runner.register_hook(Spoil(iteration, what))
    return runner


def names(folder):
    return sorted(
        path.name for path in Path(folder).iterdir() if path.is_file()
    )


def all_finite(folder):
    for path in folder.glob('*.pth'):
        state = torch.load(path, weights_only=True)['state_dict']
        assert not_finite(state) is None, path


@pytest.mark.parametrize('iteration', [1, 5])
def test_a_loss_that_becomes_nan_stops_the_training(data, tmp_path, iteration):
    runner = spoiled(data, tmp_path, iteration, 'loss')
    with pytest.raises(UserError) as error:
        runner.train()
    text = str(error.value)
    good = f'the last good checkpoint is {tmp_path}/iter_4.pth'
    assert text.startswith(
        f'iteration {iteration}: the loss is nan (decode.loss_ce); '
        + (good if iteration > 4 else 'no checkpoint was saved before')
    )
    assert 'go on with --resume' in text
    assert 'stop_on_nonfinite=False goes on' in text
    assert '\n' not in text
    all_finite(tmp_path)


@pytest.mark.parametrize(
    'what', ['decode_head.conv_seg.weight', 'decode_head.cca.gamma']
)
def test_a_weight_that_is_not_finite_is_never_saved(data, tmp_path, what):
    """In the iteration of a checkpoint, where the loss was still finite."""
    model = build_runner(tiny_config(data, tmp_path / 'names')).model
    what = next(
        name for name, _ in model.named_parameters() if name.startswith(what)
    )
    runner = spoiled(data, tmp_path / 'run', 6, what)
    with pytest.raises(UserError, match=rf'iteration 6: .*{what}.* iter_4|4'):
        runner.train()
    assert find_latest(tmp_path / 'run').endswith('iter_4.pth')
    all_finite(tmp_path / 'run')


def test_no_time_is_spent_on_validating_what_is_lost(data, tmp_path):
    """An iteration without checkpoint, before a validation."""
    options = {
        'default_hooks.checkpoint.interval': 3,
        'train_cfg.val_interval': 4,
    }
    runner = spoiled(data, tmp_path, 4, 'decode_head.conv_seg.bias', **options)
    with pytest.raises(UserError, match=r'iteration 4: a weight is not fin'):
        runner.train()
    assert runner.val_loop._runner is runner
    assert 'mIoU: ' not in ''.join(
        path.read_text() for path in tmp_path.glob('*/*.log')
    )


def test_the_option_goes_on_and_saves_nothing_bad(data, tmp_path):
    options = {'default_hooks.checkpoint.stop_on_nonfinite': False}
    runner = spoiled(data, tmp_path, 5, 'loss', **options)
    runner.train()
    assert runner.iter == 8
    assert find_latest(tmp_path).endswith('iter_4.pth')
    all_finite(tmp_path)
    log = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert log.count('iteration 5: the loss is nan') == 1


def test_a_step_that_the_scaler_leaves_out_is_no_end(data, tmp_path):
    """Losses that are not finite, and weights that stay as they were."""
    hook = SafeCheckpointHook(interval=1, by_epoch=False)
    runner = build_runner(tiny_config(data, tmp_path))
    runner.optim_wrapper.loss_scaler = object()
    hook._iteration = 1
    bad = {'loss': torch.tensor(torch.inf), 'decode.loss_ce': torch.ones(())}
    good = {'loss': torch.ones(())}
    for outputs in [bad] * 19 + [good] + [bad] * 19:
        hook._check_loss(runner, outputs)
    with pytest.raises(UserError, match=r'iteration 1: the loss is inf; no'):
        hook._check_loss(runner, bad)
    hook._check_loss(runner, good)
    runner.model.decode_head.conv_seg.bias.data[0] = torch.nan
    with pytest.raises(UserError, match=r'iteration 1: the loss is inf'):
        hook._check_loss(runner, bad)


def test_weights_that_are_not_finite_are_not_gone_on_from(data, tmp_path):
    build_runner(tiny_config(data, tmp_path / 'run')).train()
    newest = tmp_path / 'run' / 'iter_8.pth'
    saved = torch.load(newest, weights_only=True)
    saved['state_dict']['decode_head.conv_seg.bias'][1] = torch.nan
    torch.save(saved, newest)
    found = 'first is decode_head.conv_seg.bias'
    cfg = tiny_config(data, tmp_path / 'run')
    cfg.resume = str(newest)
    with pytest.raises(UserError, match=found):
        build_runner(cfg)
    cfg.resume, cfg.load_from = False, str(newest)
    with pytest.raises(UserError, match=found):
        build_runner(cfg, train=False)
    # By itself a resumed training takes the one before.
    assert find_latest(tmp_path / 'run').endswith('iter_6.pth')


def killed_after(name, monkeypatch):
    """Kill a training once it has written a file of this name."""
    put = AtomicLocalBackend.put

    def put_and_die(self, obj, path):
        put(self, obj, path)
        if Path(path).name == name:
            raise Killed

    monkeypatch.setattr(AtomicLocalBackend, 'put', put_and_die)


KILLS = {
    # The last checkpoint is there, the one that it replaces not yet removed.
    'iter_4.pth': {},
    'iter_6.pth': {},
    # The best one is there, the one before not yet removed, and the
    # training's checkpoint does not name it.
    'best_mIoU_iter_4.pth': {},
    'best_mIoU_iter_6.pth': {},
}


def scored(monkeypatch, *scores):
    """Give scores to the validations, every second iteration; list them."""
    done = []

    def evaluate(self, size):
        # That before, counted from 0; at the start of a run the next.
        iteration = MessageHub.get_current_instance().get_info('iter')
        done.append((iteration + 1) // 2 * 2)
        return {'mIoU': scores[done[-1] // 2 - 1]}

    monkeypatch.setattr(Evaluator, 'evaluate', evaluate)
    return done


@pytest.mark.slow
@pytest.mark.parametrize('name', KILLS)
def test_what_a_kill_leaves_is_cleared_by_the_next_run(
    data, tmp_path, monkeypatch, name
):
    options = {
        'default_hooks.checkpoint.max_keep_ckpts': 1,
        'default_hooks.checkpoint.save_best': 'mIoU',
        'train_cfg.val_interval': 2,
    }
    scored(monkeypatch, 10.0, 20.0, 30.0, 25.0)
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    build_runner(tiny_config(data, whole, **options)).train()
    expected = [n for n in names(whole) if n.endswith('.pth')]
    assert expected == ['best_mIoU_iter_6.pth', 'iter_8.pth']
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(name, patch)
        build_runner(tiny_config(data, killed, **options)).train()
    # And what a kill while writing would leave.
    (killed / '.iter_6.partial.pth').write_bytes(b'PK')
    (killed / '.best_mIoU_iter_6.partial.pth').write_bytes(b'PK')
    cfg = tiny_config(data, killed, **options)
    cfg.resume = True
    runner = build_runner(cfg)
    runner.train()
    found = [n for n in names(killed) if n.endswith('.pth')]
    assert found == expected
    assert losses(killed) == losses(whole)
    assert runner.message_hub.get_info('best_score') == 30.0


def killed_in_validation(iteration, monkeypatch):
    """Kill a training before the scores of a validation are known."""
    evaluate = Evaluator.evaluate

    def evaluate_or_die(self, size):
        scores = evaluate(self, size)
        if MessageHub.get_current_instance().get_info('iter') + 1 == iteration:
            raise Killed
        return scores

    monkeypatch.setattr(Evaluator, 'evaluate', evaluate_or_die)


@pytest.mark.slow
@pytest.mark.parametrize(
    'kill, at, again',
    [
        (killed_in_validation, 4, [4, 6, 8]),
        (killed_after, 'iter_6.pth', [6, 8]),
    ],
)
def test_a_validation_that_a_kill_stopped_is_made_up_for(
    data, tmp_path, monkeypatch, kill, at, again
):
    options = {
        'default_hooks.checkpoint.save_best': 'mIoU',
        'train_cfg.val_interval': 2,
    }
    done = scored(monkeypatch, 10.0, 40.0, 30.0, 25.0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill(at, patch)
        build_runner(tiny_config(data, tmp_path, **options)).train()
    done.clear()
    cfg = tiny_config(data, tmp_path, **options)
    cfg.resume = True
    build_runner(cfg).train()
    assert done == again
    best = [n for n in names(tmp_path) if n.startswith('best')]
    assert best == ['best_mIoU_iter_4.pth']


def test_what_the_user_put_there_stays(data, tmp_path):
    options = {'default_hooks.checkpoint.max_keep_ckpts': 1}
    cfg = tiny_config(data, tmp_path, **options)
    build_runner(cfg).train()
    mine = tmp_path / 'best_of_mine.pth'
    for name in ('iter_1.pth', mine.name, 'notes.pth'):
        shutil.copy(tmp_path / 'iter_8.pth', tmp_path / name)
    cfg.resume = str(tmp_path / 'iter_8.pth')
    cfg.train_cfg.max_iters = 10
    build_runner(cfg).train()
    assert [n for n in names(tmp_path) if n.endswith('.pth')] == [
        'best_of_mine.pth', 'iter_1.pth', 'iter_10.pth', 'notes.pth',
    ]  # fmt: skip


@pytest.mark.parametrize(
    'note',
    [
        b'\xff\xfe\x00',
        b'x' * 5000,
        b'\x00' * 100,
        b'/nowhere/iter_8.pth\n',
        b'',
    ],
)
def test_a_damaged_note_of_the_last_checkpoint(tmp_path, note):
    torch.save({'weight': torch.ones(2)}, tmp_path / 'iter_8.pth')
    (tmp_path / 'last_checkpoint').write_bytes(note)
    assert find_latest(tmp_path) == str(tmp_path / 'iter_8.pth')


class Remove(Hook):
    """Removes the work folder in one iteration."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 4:
            shutil.rmtree(runner.work_dir)


def test_a_work_folder_that_disappears_ends_in_one_line(data, tmp_path):
    runner = build_runner(tiny_config(data, tmp_path / 'run'))
    runner.register_hook(Remove())
    with pytest.raises(UserError) as error:
        runner.train()
    assert f'work folder {tmp_path / "run"} was moved or' in str(error.value)
    assert 'iteration 4' in str(error.value)
