# Copyright (c) mmseg_attn contributors.
"""Two CPU processes train as one with the same total batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_training import ROOT, environment, run, tiny_config, write_dataset

from mmseg_attn.engine.runner import build_runner

# A thread that has ended is listed for a moment longer. The two processes
# share what they print to, so that each writes a file.
COUNT_THREADS = """
import os, runpy, sys, time
here = os.path.dirname(sys.argv[0])
sys.path.insert(0, os.path.dirname(sys.argv[1]))
del sys.argv[0]
runpy.run_path(sys.argv[0])['main']()
until = time.monotonic() + 10
tasks = '/proc/self/task'  # Linux has it
threads = lambda: len(os.listdir(tasks)) if os.path.isdir(tasks) else 0
while threads() > 1 and time.monotonic() < until:
    time.sleep(0.01)
with open(os.path.join(here, 'left_' + os.environ['RANK']), 'w') as file:
    file.write(str(threads()))
"""


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def launch(*arguments):
    """Run a script in two processes with torchrun."""
    return run(
        [
            *(sys.executable, '-m', 'torch.distributed.run'),
            *('--nproc_per_node=2', f'--master_port={free_port()}'),
            *map(str, arguments),
            *('--launcher', 'pytorch'),
        ]
    )


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """A training in two processes, then its test; threads left by each."""
    folder = tmp_path_factory.mktemp('two')
    data = write_dataset(folder / 'data')
    configs = {}
    for name, batch in (('one', 4), ('two', 2)):
        # Dropout draws other numbers for a batch of another size.
        configs[name] = cfg = tiny_config(
            data,
            folder / name,
            **{
                'train_dataloader.batch_size': batch,
                'model.decode_head.dropout_ratio': 0.0,
                'train_cfg.max_iters': 4,
            },
        )
        # Frozen statistics, so that one process of BN sees what two see.
        cfg.model.backbone.norm_cfg = dict(type='SyncBN', requires_grad=True)
        cfg.model.backbone.norm_eval = True
        cfg.dump(str(folder / f'{name}.py'))
    count = folder / 'count_threads.py'
    count.write_text(COUNT_THREADS)
    checkpoint = folder / 'two' / 'iter_4.pth'
    said, left = {}, {}
    for tool, given in (('train', ()), ('test', (checkpoint,))):
        script = ROOT / 'tools' / f'{tool}.py'
        said[tool] = launch(count, script, folder / 'two.py', *given)
        left[tool] = [(folder / f'left_{i}').read_text() for i in (0, 1)]
    return SimpleNamespace(
        folder=folder, alone=configs['one'], said=said, left=left
    )


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='tests the CPU path')
def test_two_processes_give_the_single_process_result(two):
    build_runner(two.alone).train()
    assert 'SyncBN runs as BN' in two.said['train']

    # The log holds the loss of the first process's half only.
    names = ('one/iter_2.pth', 'one/iter_4.pth', 'two/iter_4.pth')
    early, one, both = (
        torch.load(two.folder / name, weights_only=True) for name in names
    )
    for key, value in one['state_dict'].items():
        other = both['state_dict'][key]
        assert torch.allclose(value, other, rtol=1e-4, atol=1e-5), key
    learned = 'decode_head.conv_seg.weight'
    change = one['state_dict'][learned] - early['state_dict'][learned]
    assert change.abs().max() > 1e-3

    # Testing in two processes sees each picture once.
    report = max((two.folder / 'two').glob('*/*.json'))
    two.alone.load_from = str(two.folder / names[-1])
    metrics = build_runner(two.alone, train=False).test()
    both = json.loads(report.read_text())
    assert both['mIoU'] == pytest.approx(metrics['mIoU'])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='tests the CPU path')
def test_parts_of_the_weights_on_two_machines(tmp_path):
    """FSDP: as one process, and its checkpoint is that of any model.

    The machines are two nodes of one process each, as dist_train.sh starts
    them.
    """
    cfg = tiny_config(
        write_dataset(tmp_path / 'data'),
        tmp_path / 'parts',
        **{
            'train_dataloader.batch_size': 2,
            'model.decode_head.type': 'mmseg_attn.LAHead',
            'model.decode_head.dropout_ratio': 0.0,
            'train_cfg.max_iters': 2,
        },
    )
    cfg.runner_type = 'FlexibleRunner'
    wrapper = dict(use_orig_params=True)
    cfg.strategy = dict(type='FSDPStrategy', model_wrapper=wrapper)
    cfg.dump(str(tmp_path / 'parts.py'))
    nodes = [
        subprocess.Popen(
            ['bash', ROOT / 'tools/dist_train.sh', tmp_path / 'parts.py', '1'],
            env=dict(
                environment(),
                NNODES='2',
                NODE_RANK=rank,
                PORT=port,
                PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for port in [str(free_port())]
        for rank in '01'
    ]
    for node in nodes:
        output, _ = node.communicate()
        assert node.returncode == 0, output[-4000:]

    cfg.train_dataloader.batch_size = 4
    for key in ('runner_type', 'strategy'):
        cfg.pop(key)
    cfg.work_dir = str(tmp_path / 'one')
    build_runner(cfg).train()
    one, parts = (
        torch.load(tmp_path / name / 'iter_2.pth', weights_only=True)
        for name in ('one', 'parts')
    )
    assert one['state_dict'].keys() == parts['state_dict'].keys()
    for key, value in one['state_dict'].items():
        other = parts['state_dict'][key]
        assert torch.allclose(value, other, rtol=1e-4, atol=1e-5), key


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='counts by /proc')
@pytest.mark.parametrize('tool', ['train', 'test'])
def test_no_thread_outlives_the_tool(two, tool):
    # One that does takes part in the interpreter's end and may abort it.
    assert two.left[tool] == ['1', '1']
