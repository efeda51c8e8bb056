# Copyright (c) mmseg_attn contributors.
"""A training that was cut off goes on as if it had not been."""

import signal
import subprocess
import time

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from tiny_training import (
    command,
    environment,
    losses,
    run,
    tiny_config,
    write_dataset,
)

from mmseg_attn.engine.resume import find_latest
from mmseg_attn.engine.runner import build_runner
from mmseg_attn.errors import UserError


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data')


class Cut(Hook):
    """Ends a training before the given iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            raise InterruptedError


def by_epoch(cfg):
    cfg.train_cfg = ConfigDict(
        type='EpochBasedTrainLoop', max_epochs=3, val_interval=1
    )
    cfg.train_dataloader.sampler.type = 'DefaultSampler'
    cfg.default_hooks.checkpoint = ConfigDict(
        type='CheckpointHook', interval=1
    )
    cfg.param_scheduler[0].by_epoch = True
    cfg.log_processor.by_epoch = True
    return cfg


def weights(work_dir):
    return torch.load(find_latest(work_dir), weights_only=True)['state_dict']


def assert_same(one, other):
    """Both trainings logged the same losses and reached the same weights."""
    expected, found = losses(one), losses(other)
    assert len(expected) >= 8
    assert found == expected
    ours, theirs = weights(one), weights(other)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


@pytest.mark.slow
def test_killed_training_resumes_to_the_same_losses(data, tmp_path):
    """The real thing: SIGKILL, with loader workers and dropout."""
    options = {
        'train_dataloader.num_workers': 2,
        'train_dataloader.persistent_workers': True,
    }
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    for work_dir in (whole, killed):
        cfg = tiny_config(data, work_dir, **options)
        cfg.dump(str(tmp_path / f'{work_dir.name}.py'))
    run(command('train', tmp_path / 'whole.py'))
    process = subprocess.Popen(
        command('train', tmp_path / 'killed.py'),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (killed / 'iter_4.pth').exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / 'iter_8.pth').exists()
    output = run(command('train', tmp_path / 'killed.py', '--resume'))
    assert 'resumed epoch: 0, iter: ' in output
    assert_same(whole, killed)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['iterations', 'epochs'])
def test_resume_without_workers(data, tmp_path, kind):
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    configs = [tiny_config(data, path) for path in (whole, cut)]
    if kind == 'epochs':
        configs = [by_epoch(cfg) for cfg in configs]
    build_runner(configs[0]).train()
    runner = build_runner(configs[1])
    runner.register_hook(Cut(7))
    with pytest.raises(InterruptedError):
        runner.train()
    configs[1].resume = True
    # The seed is taken from the checkpoint, for the sampler as well.
    configs[1].randomness = ConfigDict(seed=None)
    build_runner(configs[1]).train()
    assert_same(whole, cut)


@pytest.mark.slow
def test_augmentation_does_not_depend_on_the_workers(data, tmp_path):
    batches = []
    for workers in (0, 1, 3):
        cfg = tiny_config(data, tmp_path / str(workers))
        cfg.train_dataloader.num_workers = workers
        loop = build_runner(cfg).build_train_loop(cfg.train_cfg)
        batches.append(
            [
                torch.stack(next(loop.dataloader_iterator)['inputs'])
                for _ in range(5)
            ]
        )
    for found in batches[1:]:
        for one, other in zip(batches[0], found, strict=True):
            assert torch.equal(one, other)
    # It does change from one pass over the data to the next.
    first, again = batches[0][0], batches[0][4]
    assert not torch.equal(first, again)


@pytest.mark.slow
def test_checkpoints_hold_plain_values(data, tmp_path):
    cfg = tiny_config(data, tmp_path / 'run')
    cfg.default_hooks.checkpoint.save_best = 'mIoU'
    build_runner(cfg).train()
    for path in (tmp_path / 'run').glob('*.pth'):
        saved = torch.load(path, weights_only=True)
        hub = saved['message_hub']
        history = hub['log_scalars']['train/loss']['log_history']
        assert len(history) == saved['meta']['iter'], path
    best = sorted((tmp_path / 'run').glob('best_mIoU_*.pth'))
    assert len(best) == 1
    # Such a file has no optimizer's state to go on from.
    cfg.resume = str(best[0])
    with pytest.raises(UserError, match='cannot be resumed from.*load_from='):
        build_runner(cfg)


@pytest.mark.slow
def test_the_newest_checkpoints_are_kept(data, tmp_path):
    cfg = tiny_config(data, tmp_path / 'run')
    cfg.default_hooks.checkpoint.max_keep_ckpts = 2
    build_runner(cfg).train()
    kept = {path.name for path in (tmp_path / 'run').glob('iter_*')}
    assert kept == {'iter_6.pth', 'iter_8.pth'}


@pytest.mark.slow
def test_an_old_checkpoint_goes_only_after_the_new_one(data, tmp_path):
    """mmengine itself would remove iter_2 before it fails to write iter_4."""
    work_dir = tmp_path / 'run'
    cfg = tiny_config(data, work_dir)
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=1, save_best='mIoU')
    runner = build_runner(cfg)
    # A folder of that name cannot be replaced by a file.
    (work_dir / 'iter_4.pth' / 'in the way').mkdir(parents=True)
    with pytest.raises(UserError, match=r'cannot save .*iter_4\.pth'):
        runner.train()
    assert find_latest(work_dir) == str(work_dir / 'iter_2.pth')
    assert not list(work_dir.glob('*partial*'))
    (work_dir / 'iter_4.pth' / 'in the way').rmdir()
    (work_dir / 'iter_4.pth').rmdir()
    cfg.resume = 'auto'
    build_runner(cfg).train()
    kept = {path.name.split('_iter')[0] for path in work_dir.glob('*.pth')}
    assert kept == {'iter_8.pth', 'best_mIoU'}


def test_nothing_to_resume(data, tmp_path):
    cfg = tiny_config(data, tmp_path / 'run')
    cfg.resume = 'auto'
    runner = build_runner(cfg)
    assert runner.cfg.resume is False
    cfg.resume = str(tmp_path / 'run' / 'iter_4.pth')
    with pytest.raises(UserError, match=r'iter_4\.pth does not exist'):
        build_runner(cfg)


@pytest.mark.slow
def test_full_disk_ends_training_but_keeps_the_checkpoint(data, tmp_path):
    from test_checkpoints import small_disk

    with small_disk(tmp_path / 'disk', '3m'):  # one checkpoint is 1.6 MiB
        work_dir = tmp_path / 'disk' / 'run'
        cfg = tiny_config(data, work_dir)
        cfg.default_hooks.checkpoint.max_keep_ckpts = 1
        cfg.dump(str(tmp_path / 'cfg.py'))
        output = run(command('train', tmp_path / 'cfg.py'), succeeds=False)
        last = output.strip().splitlines()[-1]
        assert last.startswith('Error: cannot save'), last
        assert 'iter_4.pth: No space left on device. It needs 1.6 MiB' in last
        saved = torch.load(work_dir / 'iter_2.pth', weights_only=True)
        assert saved['meta']['iter'] == 2
        assert not list(work_dir.glob('*partial*'))
