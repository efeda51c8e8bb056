# Copyright (c) mmseg_attn contributors.
"""Arguments with which a model's part cannot work are refused when made."""

import inspect
import math
from types import SimpleNamespace

import pytest

from mmseg_attn import models
from mmseg_attn.registry import MODELS, TASK_UTILS

NO_COUNTS = [0, -1, 1.5, '8', math.nan, math.inf, True]
NO_NUMBERS = ['8', math.nan, math.inf, -math.inf]
NO_WEIGHTS = [*NO_NUMBERS, -1]
NO_SHARES = ['8', math.nan, math.inf, -0.1, 1, 2]
NO_CONFIGS = [1, 'BN', True, {}, {'eps': 1e-5}]
# Of any class.
WRONG = {
    'ccl_channels': NO_COUNTS,
    'attention_channels': NO_COUNTS,
    'decoder_channels': NO_COUNTS,
    'skip_channels': NO_COUNTS,
    'isa_channels': NO_COUNTS,
    'fcn_channels': NO_COUNTS,
    'in_channels': NO_COUNTS,
    'channels': NO_COUNTS,
    'edge_width': [*NO_COUNTS, 2],
    'min_pixels': NO_COUNTS,
    'min_kept': [-1, 1.5, '8', math.nan, math.inf, True],
    'recurrence': [-1, 1.5, '8', math.nan, True, None],
    'label_frame': [-1, 1.5, '8', math.nan, True],
    'edge_weight': NO_WEIGHTS,
    'alpha': NO_WEIGHTS,
    'beta': NO_WEIGHTS,
    'gamma': NO_WEIGHTS,
    'loss_weight': NO_WEIGHTS,
    'gamma_init': NO_NUMBERS,
    'delta_var': [*NO_NUMBERS, -1, 1.5],
    'delta_dist': [*NO_NUMBERS, 0.5],
    'thresh': [*NO_NUMBERS, 0, 1.1],
    'attention_dropout': NO_SHARES,
    'dropout_ratio': NO_SHARES,
    'weights': [(), 1.0, 'abc', (1.0, math.nan), (-1.0,)],
    'pool_sizes': [(), (1, 2, 4), 8, (8, 4, 2, 0), (8, 4, 2, 1.5)],
    'levels': [(), (0, 0), (-1,), 2, 'ab'],
    'swap_labels': [(1, 2), [(0, 1, 2)], [(0, 0)], 3],
    'pyramid': [1, 'ab', (0,), (1, 1.5), None],
    'dilations': [12, 'ab', (0,), (12, 1.5), None],
    'down_factor': [(), 0, 1.5],  # the layer checks what is in it
    'loss_name': ['ccl', '', 3],
    'reduction': ['max', 3, None],
    'variance': ['cubic', 3, None],
    'resize': ['both', 3, None],
    'test_output': ['all', 3, None],
    'output_stride': [0, 4, '8', math.nan],
    'grid': [4, -5, 1.5, 'a', None, math.nan],
    'class_weight': ['abc', 3, None, [1.0], [1.0, 1.0, 0], [1, 1, math.nan]],
    'in_index': ['a', 1.5, [], [0.5], True],
    'norm_cfg': NO_CONFIGS,
    'num_attentions': NO_COUNTS,
}
# mmseg's, of each decode head.
OF_HEADS = {
    'num_classes': NO_COUNTS,
    'out_channels': NO_COUNTS,
    'conv_cfg': NO_CONFIGS,
    'act_cfg': NO_CONFIGS,
    'threshold': NO_NUMBERS,
    'ignore_index': ['255', 1.5, math.nan],
    **{
        name: WRONG[name]
        for name in ('channels', 'in_channels', 'in_index', 'norm_cfg')
    },
    'dropout_ratio': NO_SHARES,
}
# Flags, configs of parts that say themselves what is wrong, and the hosts'.
OTHERS = (
    *('attention', 'attentions', 'layer', 'loss_ccl', 'loss_dense'),
    *('loss_presence', 'features', 'cost_volume', 'aggregation', 'module'),
    *('regression', 'loss_disparity', 'data_preprocessor', 'init_cfg'),
    *('align_corners', 'decode_head', 'residual', 'base', 'context'),
    *('bgr_to_rgb', 'rgb_to_bgr', 'args', 'kwargs', 'stem_channels'),
    *(
        'arch',
        'out_indices',
        'norm_eval',
        'one_batch',
        'image_level',
        'classifier_bias',
    ),
)
LAYER = dict(type='mmseg_attn.CrissCrossAttention')
HEAD = dict(in_channels=64, channels=16, num_classes=3)
STAGES = dict(in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3])
DISPARITIES = {
    'PSMNet': [*NO_COUNTS, 24],
    'DisparityLoss': ['8', math.nan, 0, -1],
}
GIVEN = {
    'AttentionHead': dict(HEAD, attention=LAYER),
    'CAAHead': HEAD,
    'CCHead': HEAD,
    'CCHead3D': HEAD,
    'CE2PHead': dict(HEAD, **STAGES),
    'EAHead': HEAD,
    'ISAHead': dict(HEAD, isa_channels=8),
    'LAHead': HEAD,
    'MANetHead': dict(HEAD, **STAGES),
    'MAResUNetHead': dict(HEAD, **STAGES),
    'SqueezeAttentionHead': dict(HEAD, **STAGES),
    'LevelAttention': dict(in_channels=16, levels=(0,), layer=LAYER),
    'AttentionNeck': dict(
        levels=(0,), layer=LAYER, in_channels=[16], out_channels=16, num_outs=1
    ),
    'ClipEncoderDecoder': dict(decode_head={}),
    'OHEMPixelSampler': dict(context=None),
    'ClassWeightPixelSampler': dict(context=SimpleNamespace(num_classes=3)),
}
# Those that need more than is worth building here have tests of their own.
ELSEWHERE = ('SegTTAModel', 'MirrorTTAModel', 'DilatedEfficientNet')


def parts():
    """Every class of the models that is registered."""
    for registry in (MODELS, TASK_UTILS):
        for name, kind in registry.module_dict.items():
            own = '__init__' in vars(kind) or inspect.isfunction(kind)
            ours = own and kind.__module__.startswith(models.__name__)
            if ours and name not in ELSEWHERE:
                yield name, kind


def wrong_values(name, kind):
    known = dict(WRONG, max_disparity=DISPARITIES.get(name, []))
    for argument in inspect.signature(kind).parameters:
        if argument in OTHERS:
            continue
        assert argument in known, f'say in this test what {argument} may be'
        for value in known[argument]:
            yield argument, value
    if name.endswith(('Head', 'Head3D')):
        for argument, values in OF_HEADS.items():
            for value in values:
                yield argument, value


@pytest.mark.parametrize('name, kind', list(parts()))
def test_wrong_arguments_are_refused_in_one_line(name, kind):
    for argument, value in wrong_values(name, kind):
        options = {**GIVEN.get(name, {}), argument: value}
        with pytest.raises(ValueError, match=argument) as caught:
            kind(**options)
            pytest.fail(f'{name}({argument}={value!r}) was made')
        assert '\n' not in str(caught.value)
