# Copyright (c) mmseg_attn contributors.
import torch
from mmengine.config import Config
from mmseg.models import build_segmentor
from torch import nn

from mmseg_attn.apis.complexity import count_flops, segmentor_flops
from mmseg_attn.layers import CrissCrossAttention
from mmseg_attn.ops.core import matmul


def test_two_loops_are_those_of_the_paper():
    """8.29 GFLOP a loop, 16.58 in all, at 512x97x97 with keys of 64."""
    layer, n = CrissCrossAttention(512).eval(), 97**2
    counted = count_flops(
        nn.Sequential(layer, layer), torch.empty(1, 512, 97, 97)
    )
    # A position is computed in its row and in its column, and masked once.
    projections, keys = 512 * (64 + 64 + 512), 97 + 97
    assert counted == 2 * 2 * n * (projections + keys * (64 + 512))
    # The author counts biases as one more channel, and one more key.
    author = counted + 2 * 2 * n * (64 + 64 + 512 + 64 + 512)
    assert f'{author / 1e9:.2f}' == '16.58'


def test_parts_of_a_segmentor():
    """Equal to the counts of their convolutions, one by one."""
    maps = dict(in_channels=8, channels=6, norm_cfg=None)
    model = build_segmentor(
        Config(
            dict(
                type='EncoderDecoder',
                backbone=dict(
                    type='ResNet',
                    depth=18,
                    base_channels=8,
                    stem_channels=4,
                    num_stages=1,
                    strides=(1,),
                    dilations=(1,),
                    out_indices=(0,),
                ),
                neck=dict(
                    type='FPN', in_channels=[8], out_channels=8, num_outs=1
                ),
                decode_head=dict(
                    type='FCNHead', num_convs=1, num_classes=3, **maps,
                    concat_input=False, in_index=0,
                ),
            )
        )
    ).train()  # fmt: skip
    # A stem of stride 2 and a pool of stride 2: maps of 20x12 and 10x6.
    expected = dict(
        backbone=2 * 240 * (7 * 7 * 3 * 4)
        + 2 * 60 * (9 * 4 * 8 + 3 * 9 * 8 * 8 + 4 * 8),
        neck=2 * 60 * (8 * 8 + 9 * 8 * 8),
        decode_head=2 * 60 * (9 * 8 * 6 + 6 * 3),
    )
    assert segmentor_flops(model, 40, 24) == expected
    assert model.training
    del model.neck
    without = segmentor_flops(model, 40, 24)
    assert without == {k: v for k, v in expected.items() if k != 'neck'}


def test_what_the_product_library_tries_out_is_not_counted():
    matmul.onednn_works.cache_clear()
    operands = torch.ones(128, 128), torch.ones(128, 512)
    assert count_flops(matmul.mm, *operands) == 2 * 128 * 128 * 512
