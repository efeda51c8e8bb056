# Copyright (c) mmseg_attn contributors.
"""Convolutions in the memory format that is fastest in 16 bits."""

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Train and test with weights, and so with maps, in ``channels_last``.

    Values are the same. In 16 bits the convolutions of CPUs and of tensor
    cores want this format.
    """

    def before_run(self, runner: Runner) -> None:
        """Lay out the weights.

        Args:
            runner: Has the model.
        """
        runner.model.to(memory_format=torch.channels_last)
