# Copyright (c) mmseg_attn contributors.
"""The hosts' published checkpoints fit our models, name by name."""

from importlib.util import find_spec
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

ROOT = Path(__file__).parents[2]


def conv_module(name, out_channels, in_channels):
    norm = ('weight', 'bias', 'running_mean', 'running_var')
    shapes = {f'{name}.conv.weight': (out_channels, in_channels, 3, 3)}
    shapes |= {f'{name}.bn.{key}': (out_channels,) for key in norm}
    shapes[f'{name}.bn.num_batches_tracked'] = ()
    return shapes


def projection(name, out_channels, in_channels):
    return {
        f'{name}.weight': (out_channels, in_channels, 1, 1),
        f'{name}.bias': (out_channels,),
    }


# As the hosts' class makes them: an FCNHead of two convolutions with mmcv's
# CrissCrossAttention, named cca, between the two.
HOST_HEAD = {
    **conv_module('convs.0', 512, 2048),
    **projection('cca.query_conv', 64, 512),
    **projection('cca.key_conv', 64, 512),
    **projection('cca.value_conv', 512, 512),
    'cca.gamma.scale': (),
    **conv_module('convs.1', 512, 512),
    **conv_module('conv_cat', 512, 2560),
    **projection('conv_seg', 19, 512),
}


@pytest.fixture(scope='module')
def config():
    init_default_scope('mmseg')
    name = 'ccnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'
    cfg = Config.fromfile(ROOT / 'configs' / 'ccnet' / name)
    cfg.model.pretrained = None
    return cfg


def test_head_has_the_hosts_names_and_shapes(config):
    head = MODELS.build(config.model.decode_head)
    ours = {k: tuple(v.shape) for k, v in head.state_dict().items()}
    assert ours == HOST_HEAD


@pytest.mark.skipif(
    find_spec('mmcv._ext') is None,
    reason="the host's CCHead needs an mmcv with compiled ops",
)
def test_whole_host_model_loads_strictly_and_answers_the_same(config):
    ours = revert_sync_batchnorm(MODELS.build(config.model)).eval()
    config.model.decode_head.type = 'mmseg.CCHead'
    theirs = revert_sync_batchnorm(MODELS.build(config.model)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        theirs.decode_head.cca.gamma.scale.fill_(0.7)
        for name, value in theirs.named_buffers():
            if name.endswith('running_var'):
                value.uniform_(0.5, 1.5)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        image = torch.randn(1, 3, 65, 97)
        expected = theirs(image)
        error = (ours(image) - expected).abs().max()
    assert error <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    'name',
    [
        'isanet_r50-d8_4xb2-40k_cityscapes-512x1024',
        'isanet_r50-d8_4xb4-80k_ade20k-512x512',
        'isanet_r101-d8_4xb4-20k_voc12aug-512x512',
    ],
)
def test_whole_isanet_has_the_hosts_names_and_shapes(name):
    shapes = []
    host = Path(mmseg.__path__[0]) / '.mim' / 'configs'
    for root in (ROOT / 'configs', host):
        cfg = Config.fromfile(root / 'isanet' / f'{name}.py')
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
        shapes.append({k: v.shape for k, v in model.state_dict().items()})
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) > 300
