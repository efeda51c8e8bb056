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


class Block(nn.Module):
    """A residual block by torchvision's names, a bottleneck if it expands."""

    def __init__(
        self, inputs, width, expansion=1, stride=1, dilation=1, norm=ABN
    ):
        super().__init__()
        outputs = expansion * width

        def conv(inputs, outputs, size=3, stride=1, dilation=1):
            padding = dilation * (size // 2)
            return nn.Conv2d(
                inputs, outputs, size, stride, padding, dilation, bias=False
            )

        self.conv3 = None
        if expansion > 1:
            self.conv1 = conv(inputs, width, 1)
            self.conv2 = conv(width, width, 3, stride, dilation)
            self.conv3, self.bn3 = conv(width, outputs, 1), norm(outputs)
        else:
            self.conv1 = conv(inputs, width, 3, stride)
            self.conv2 = conv(width, width)
        self.bn1, self.bn2 = norm(width), norm(width)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                conv(inputs, outputs, 1, stride), norm(outputs)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.conv3 is not None:
            y = self.bn3(self.conv3(y.relu()))
        return (y + (self.downsample or nn.Identity())(x)).relu()


def dilated_stages(inputs, width, contracted):
    """The four of a ResNet-50 at stride 8; how the first blocks dilate."""
    stages = []
    for blocks, stride, dilation in (3, 1, 1), (4, 2, 1), (6, 1, 2), (3, 1, 4):
        stage = nn.Sequential()
        for block in range(blocks):
            own = dilation // 2 if contracted and not block else dilation
            stage.append(
                Block(inputs, width, 4, 1 if block else stride, max(own, 1))
            )
            inputs = 4 * width
        stages.append(stage)
        width *= 2
    return stages


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
    return network.double().eval()


def build(config, change):
    """Build the model of a config that is made small by ``change(cfg)``."""
    init_default_scope('mmseg')
    cfg = Config.fromfile(ROOT / 'configs' / config).model
    cfg.pretrained = None
    change(cfg)
    return revert_sync_batchnorm(MODELS.build(cfg)).double().eval()


def assert_same(got, expected):
    """Outputs of two inputs, which tell of these, agree but for rounding."""
    assert got.shape == expected.shape
    one, other = expected
    assert (one - other).abs().max() > 0.1 * expected.abs().max()
    torch.testing.assert_close(
        got, expected, rtol=0, atol=1e-5 * expected.abs().max().item()
    )
