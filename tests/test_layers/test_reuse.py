# Copyright (c) mmseg_attn contributors.
"""The networks of docs/reuse.md are built and trained with torch alone.

Each block of the page runs as it stands; timm, segmentation_models.pytorch and
transformers are the real ones where they are installed (`pytest -rP` says it),
else those of tests/stand_ins.
"""

import subprocess
import sys

import pytest
import torch
from code_blocks import ROOT, STAND_INS, blocks_of

PAGE = ROOT / 'docs/reuse.md'
# The name of each network on the page, and the package that it is of.
NETWORKS = {
    'resnet': 'torch',
    'unet': 'segmentation_models_pytorch',
    'segmenter': 'timm',
    'segformer': 'transformers',
}
BEGIN = """
import sys
hosts = 'mmengine', 'mmcv', 'mmseg', 'mmdet', 'mmpretrain'
sys.modules.update(dict.fromkeys(hosts))
sys.path.append(sys.argv[1])
"""
END = """
import torch.nn.functional as F

torch.manual_seed(0)
truth = torch.randint(5, (2, 8, 8)).repeat_interleave(8, 1)
truth = truth.repeat_interleave(8, 2)
colours = torch.randn(5, 3)
# Contiguous: torch 2.13 corrupts memory in the backward of a strided 1x1
# convolution on three channels that come last.
pictures = colours[truth].movedim(-1, 1).contiguous()
pictures += 0.1 * torch.randn(2, 3, 64, 64)
out = {}
for name, package in NETWORKS.items():
    network = globals()[name].train()
    kinds = CrissCrossAttention, EfficientAttention
    attentions = [m for m in network.modules() if isinstance(m, kinds)]
    start = [p.clone() for a in attentions for p in a.parameters()]
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(6):
        logits = network(pictures)
        logits = getattr(logits, 'logits', logits)
        loss = F.cross_entropy(F.interpolate(logits, truth.shape[1:]), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    end = [p for a in attentions for p in a.parameters()]
    moved = [not torch.equal(a, b) for a, b in zip(start, end)]
    out[name] = dict(
        losses=losses,
        attentions=len(attentions),
        moved=moved,
        place=sys.modules[package].__file__,
    )
out['hosts'] = [host for host in hosts if sys.modules.get(host)]
torch.save(out, sys.argv[2])
"""


@pytest.fixture(scope='module')
def out(tmp_path_factory):
    text = PAGE.read_text('utf-8')
    first = text.count('\n', 0, text.index('\n## Layers in plain PyTorch'))
    last = text.count('\n', 0, text.index('\n## Operators on tensors'))
    blocks = [
        block.text
        for block in blocks_of(PAGE)
        if first < int(block.place.rpartition(':')[2]) < last
    ]
    assert len(blocks) == 1 + len(NETWORKS)
    folder = tmp_path_factory.mktemp('reuse')
    constants = f'NETWORKS = {NETWORKS}'
    script = folder / 'page.py'
    script.write_text('\n'.join([BEGIN, *blocks, constants, END]))
    done = subprocess.run(
        [sys.executable, script, STAND_INS, folder / 'out.pth'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return torch.load(folder / 'out.pth', weights_only=True)


@pytest.mark.parametrize('name', NETWORKS)
def test_network_trains_with_its_attention(out, name):
    found = out[name]
    print(f'{NETWORKS[name]} is that of {found["place"]}')
    assert found['losses'][-1] < 0.9 * found['losses'][0]
    assert found['attentions'] == (3 if name == 'unet' else 1)
    assert any(found['moved'])
    assert out['hosts'] == []
