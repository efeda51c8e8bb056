# Copyright (c) mmseg_attn contributors.
"""Layers with torch alone are those of the hosts' world, as far as they go."""

import copy
import json
import subprocess
import sys

import mmcv.cnn
import mmengine.model
import pytest
import torch
from test_every_layer import CHANNELS, LAYERS
from torch import nn

from mmseg_attn import layers
from mmseg_attn.errors import UserError
from mmseg_attn.layers import building, plain

HOSTS = ('mmengine', 'mmcv', 'mmseg', 'mmdet', 'mmpretrain')
# A module that is None cannot be imported, and is not found.
WITHOUT = """
import json, sys, time
sys.modules.update(dict.fromkeys({hosts}))
import torch
before = set(sys.modules)
clock = time.process_time()
from mmseg_attn import layers
seconds = time.process_time() - clock
loaded = {{name.partition('.')[0] for name in {{*sys.modules}} - before}}
"""
TRAIN = """
options, out = json.loads(sys.argv[1]), {}
for name, given in options.items():
    torch.manual_seed(0)
    layer = getattr(layers, name)(CHANNELS, **given)
    start = {k: v.clone() for k, v in layer.state_dict().items()}
    layer.init_weights()
    x = torch.randn(2, CHANNELS, 6, 7)
    again = {k: v.clone() for k, v in layer.state_dict().items()}
    y = layer.eval()(x).detach()
    target = torch.randn_like(y)
    optimizer = torch.optim.Adam(layer.train().parameters(), 0.01)
    losses = []
    for _ in range(8):
        loss = (layer(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    torch.save(layer.state_dict(), f'{sys.argv[2]}/{name}.pth')
    other = getattr(layers, name)(CHANNELS, **given).eval()
    weights = torch.load(f'{sys.argv[2]}/{name}.pth', weights_only=True)
    other.load_state_dict(weights)
    same = torch.equal(other(x), layer.eval()(x))
    out[name] = dict(
        start=start, again=again, x=x, y=y, losses=losses, same=same
    )
hosts = [m for m in HOSTS if sys.modules.get(m)]
from mmseg_attn.layers.inserted_attention import InsertedAttention
cfg = dict(type='mmseg_attn.CrissCrossAttention', gamma_init=1)
inserted = InsertedAttention(CHANNELS, cfg, recurrence=2)
out['inserted'] = inserted(x).shape == x.shape
out['loaded'], out['seconds'], out['hosts'] = loaded, seconds, hosts
torch.save(out, f'{sys.argv[2]}/out.pth')
"""


def run(code, hosts, *words):
    """Run Python where hosts are not installed."""
    constants = f'CHANNELS, HOSTS = {CHANNELS}, {HOSTS}\n'
    return subprocess.run(
        [
            *(sys.executable, '-c'),
            constants + WITHOUT.format(hosts=tuple(hosts)) + code,
            *words,
        ],
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope='module')
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp('without_hosts')
    done = run(TRAIN, HOSTS, json.dumps(LAYERS), str(folder))
    assert done.returncode == 0, done.stderr
    return torch.load(folder / 'out.pth', weights_only=True)


def test_the_import_brings_nothing_else(out):
    assert out['hosts'] == []
    assert out['loaded'] - {*sys.stdlib_module_names} == {'mmseg_attn'}
    assert out['seconds'] < 1
    assert out['inserted']


@pytest.mark.parametrize('name', LAYERS)
def test_trains_and_is_saved(out, name):
    losses = out[name]['losses']
    assert losses[-1] < losses[0] and out[name]['same']


@pytest.mark.parametrize('name', LAYERS)
def test_a_seed_gives_the_layer_that_it_gives_with_hosts(out, name):
    torch.manual_seed(0)
    layer = getattr(layers, name)(CHANNELS, **LAYERS[name])
    assert isinstance(layer, mmengine.model.BaseModule)
    for when in ('start', 'again'):
        if when == 'again':
            layer.init_weights()
        ours, theirs = layer.state_dict(), out[name][when]
        assert list(ours) == list(theirs)
        for key in ours:
            assert torch.equal(ours[key], theirs[key]), (when, key)
    x = torch.randn(2, CHANNELS, 6, 7)
    assert torch.equal(x, out[name]['x']), 'other random numbers were drawn'
    torch.testing.assert_close(layer.eval()(x), out[name]['y'])


CONVS = [None, dict(type='Conv2d'), dict(type='Conv'), dict(type=nn.Conv2d)]
NORMS = [
    *(None, dict(type='BN'), dict(type='BN2d', eps=1e-3, momentum=0.2)),
    *(dict(type='BN', requires_grad=False), dict(type='SyncBN')),
    *(dict(type='GN', num_groups=2), dict(type='IN', affine=True)),
    *(dict(type='IN'), dict(type=nn.BatchNorm2d)),
]
ACTIVATIONS = [
    *(None, dict(type='ReLU'), dict(type='LeakyReLU', negative_slope=0.3)),
    *(dict(type='ReLU', inplace=False), dict(type='PReLU', init=0.4)),
    *(dict(type=kind) for kind in ('ReLU6', 'LeakyReLU', 'ELU', 'SiLU')),
    *(dict(type=kind) for kind in ('Swish', 'GELU', 'Sigmoid', 'Tanh')),
]
RELU, BN = dict(type='ReLU'), dict(type='BN')


@pytest.mark.parametrize(
    'conv, norm, act',
    [
        *((conv, BN, RELU) for conv in CONVS),
        *((None, norm, RELU) for norm in NORMS),
        *((None, BN, act) for act in ACTIVATIONS),
        (None, None, None),
        (dict(type='Conv3d'), dict(type='BN3d'), RELU),
        (dict(type='Conv1d'), dict(type='BN1d'), RELU),
    ],
)
def test_our_convolution_is_that_of_mmcv(conv, norm, act):
    results, shown = [], []
    spatial = {'Conv3d': (4, 5, 6), 'Conv1d': (7,)}
    x = torch.randn(2, 6, *spatial.get((conv or {}).get('type'), (5, 7)))
    for kind in (plain.ConvModule, mmcv.cnn.ConvModule):
        torch.manual_seed(0)
        module = kind(
            *(6, 8, 3),
            padding=1,
            conv_cfg=conv,
            norm_cfg=norm,
            act_cfg=act,
        )
        start = copy.deepcopy(module.state_dict())
        module.init_weights()
        learned = [p for p in module.parameters() if p.requires_grad]
        y = module(x)
        found = torch.autograd.grad(y.square().sum(), learned)
        after = module.state_dict()
        tested = module.eval()(x).detach()
        # An activation in place costs no memory; mmcv's Swish has none.
        if act and act['type'] != 'Swish':
            shown.append(repr(module.activate))
        names = list(start)
        results.append([names, start, after, y, found, tested])
    ours, theirs = results
    assert ours.pop(0) == theirs.pop(0)
    assert len({*shown}) <= 1, shown
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_our_other_classes_are_the_hosts():
    """Start and output of a factor; parts of a row start themselves."""
    x = torch.randn(3, 4)
    for value in (0, 0.5):
        ours, theirs = plain.Scale(value), mmcv.cnn.Scale(value)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
        assert torch.equal(ours(x), theirs(x))
    cfg = dict(conv_cfg=None, norm_cfg=None, act_cfg=None)
    inner = plain.ConvModule(4, 4, 1, **cfg)
    row = plain.Sequential(nn.Linear(4, 4), plain.Sequential(inner))
    nn.init.zeros_(inner.conv.weight)
    nn.init.zeros_(row[0].weight)
    row.init_weights()
    assert inner.conv.weight.abs().sum() > 0
    assert row[0].weight.abs().sum() == 0, "torch's own start themselves once"


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(norm_cfg=dict(type='LN2d')), "norm 'LN2d' .*BN2d.* Known are"),
        (dict(conv_cfg=dict(type='DCN')), "convolution 'DCN' .*Conv2d"),
        (dict(act_cfg=dict(type='LeakyRelu')), "'LeakyRelu' .*mean LeakyReLU"),
    ],
)
def test_other_types_say_what_is_known(cfg, message):
    given = dict(conv_cfg=None, norm_cfg=None, act_cfg=None)
    with pytest.raises(UserError, match=message) as caught:
        plain.ConvModule(4, 4, 1, **{**given, **cfg})
    assert 'pip install "mmseg_attn[onedl]"' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_initialization_by_config_is_mmengines():
    cfg = dict(type='Normal', std=0.1)
    with pytest.raises(UserError, match='init_cfg=.*needs mmengine'):
        plain.BaseModule(cfg)


def test_with_hosts_their_classes_are_taken():
    assert building.ConvModule is mmcv.cnn.ConvModule
    assert building.BaseModule is mmengine.model.BaseModule


def test_mmengine_alone_registers_and_initializes():
    done = run(
        'cfg = dict(type="mmseg_attn.SqueezeAttention")\n'
        'from mmseg_attn.registry import MODELS\n'
        'layer = MODELS.build({**cfg, "in_channels": CHANNELS})\n'
        'torch.nn.init.zeros_(layer.main[0].conv.weight)\n'
        'layer.init_weights()\n'
        'assert layer.main[0].conv.weight.abs().sum() > 0\n'
        'print(type(layer.main[0]).__module__)\n',
        ('mmcv', 'mmseg', 'mmdet'),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == 'mmseg_attn.layers.plain'


def test_a_broken_host_says_so(tmp_path):
    """And is not taken for one that is not installed."""
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text(
        'raise ImportError("libGL.so.1: cannot open shared object file")\n'
    )
    code = (
        'import sys\n'
        'sys.modules["mmengine"] = None\n'
        f'sys.path.insert(0, {str(tmp_path)!r})\n'
        'from mmseg_attn import layers\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.returncode and 'libGL.so.1: cannot open' in done.stderr
