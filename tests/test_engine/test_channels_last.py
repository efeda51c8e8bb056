# Copyright (c) mmseg_attn contributors.
from types import SimpleNamespace

import torch
from torch import nn

from mmseg_attn.engine import ChannelsLastHook


def test_weights_and_maps_are_laid_out_anew_and_stay_the_same():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))
    x = torch.randn(2, 3, 9, 8)
    before = model(x)
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    after = model(x)
    torch.testing.assert_close(after, before)
    for value in (model[1].weight, after):
        assert value.is_contiguous(memory_format=torch.channels_last)
        assert not value.is_contiguous()
