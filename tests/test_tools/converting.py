# Copyright (c) mmseg_attn contributors.
"""Run the converters of checkpoints; norms as the authors had them."""

import runpy

import torch
import torch.nn.functional as F
from in_process import run_script
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from tiny_training import ROOT
from torch import nn

TOOLS = ROOT / 'tools' / 'model_converters'


def run(tool, *arguments):
    """As a user does."""
    return run_script(TOOLS / f'{tool}.py', *arguments)


def converter(tool):
    """The function that turns weights into ours and a report."""
    return runpy.run_path(str(TOOLS / f'{tool}.py'))['convert']


class ABN(nn.BatchNorm2d):
    """In-Place ABN in evaluation: |weight| + eps, then the activation."""

    def __init__(self, channels, slope=1.0):
        super().__init__(channels)
        self.num_batches_tracked = None  # it does not count them
        self.slope = slope

    def forward(self, x):
        scale = self.weight.abs() + 1e-5
        x = F.batch_norm(
            x, self.running_mean, self.running_var, scale, self.bias
        )
        return F.leaky_relu(x, self.slope)


def randomize(network):
    """Give norms statistics and weights, of both signs, as of training.

    Convolutions keep the size of what they get, so that an output tells of
    the first layers too.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.ConvTranspose2d):  # a quarter of it meets
                module.weight.data.mul_(2)
    return network.eval()


def build(config, change):
    """Build the model of a config that is made small by ``change(cfg)``."""
    init_default_scope('mmseg')
    cfg = Config.fromfile(ROOT / 'configs' / config).model
    cfg.pretrained = None
    change(cfg)
    return revert_sync_batchnorm(MODELS.build(cfg)).eval()


def assert_same(got, expected):
    """Outputs of two inputs, which tell of these, agree but for rounding."""
    assert got.shape == expected.shape
    one, other = expected
    assert (one - other).abs().max() > 0.1 * expected.abs().max()
    torch.testing.assert_close(
        got, expected, rtol=0, atol=1e-4 * expected.abs().max().item()
    )
