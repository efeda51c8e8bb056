# Copyright (c) mmseg_attn contributors.
"""The most memory of a training, of which the host's log keeps no account."""

import torch
from mmengine.runner import Runner
from torch import nn

from mmseg_attn.apis.peak_memory import PeakMemory

STEPS = 6


class Model(nn.Module):
    """Takes more memory in its second step than in any other."""

    def __init__(self, gpu):
        super().__init__()
        self.weight, self.gpu = nn.Parameter(torch.zeros(1)), gpu

    def train_step(self, data, optim_wrapper):
        self.gpu.held = max(self.gpu.held, 300 if self.gpu.step == 1 else 30)
        self.gpu.step += 1
        return {'loss': self.weight.detach()}


class Gpu:
    """What torch.cuda says of memory."""

    def __init__(self, monkeypatch):
        self.step = self.held = self.resets = 0
        for name in ('is_available', 'max_memory_allocated', 'synchronize'):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def is_available(self):
        return True

    def max_memory_allocated(self, device=None):
        return self.held

    def synchronize(self):
        pass

    def log(self):
        """As mmengine does for each line."""
        self.held, self.resets = 0, self.resets + 1


def test_the_log_does_not_hide_the_peak(monkeypatch, tmp_path):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    hook = PeakMemory()
    gpu = None

    def log(*args, **kwargs):
        gpu.log()
        return {}, ''

    monkeypatch.setattr(
        'mmengine.runner.log_processor.LogProcessor.get_log_after_iter', log
    )
    model = Model(None)
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=dict(
            dataset=[0] * STEPS, batch_size=1, sampler=None, shuffle=False
        ),
        train_cfg=dict(by_epoch=False, max_iters=STEPS),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1), checkpoint=None
        ),
        experiment_name=tmp_path.name,
    )
    runner.register_hook(hook)
    model.gpu = gpu = Gpu(monkeypatch)
    runner.train()
    assert gpu.resets == STEPS and gpu.held < 300
    assert hook.bytes == 300


def test_without_a_gpu_it_is_the_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    hook = PeakMemory()
    before = hook.bytes
    assert 50e6 < before < 50e9
    held = bytearray(200_000_000)
    assert hook.bytes >= max(before, len(held))
