# Copyright (c) mmseg_attn contributors.
"""The built wheel under mim, in an environment that never saw the checkout.

``make test`` makes that environment and names its Python in MMSEG_ATTN_MIM;
the tests put a fresh wheel into it and work from a folder of their own.
"""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sysconfig
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg_attn.datasets.scenes import write_folder
from mmseg_attn.hosts import missing_ops

ROOT = Path(__file__).resolve().parents[1]
PYTHON = os.environ.get('MMSEG_ATTN_MIM')
EXTRA = os.environ.get('MMSEG_ATTN_MIM_EXTRA', 'onedl')
CONFIG = 'ccnet_r50-d8_4xb2-40k_cityscapes-512x1024'
# The packaged Cityscapes config, made small enough for a few seconds.
SMALL = {
    'model.pretrained': 'None',
    'model.data_preprocessor.size': '(64,64)',
    'model.backbone.depth': '18',
    'model.decode_head.in_channels': '512',
    'model.decode_head.channels': '32',
    'model.auxiliary_head.in_channels': '256',
    'model.auxiliary_head.channels': '16',
    'train_dataloader.dataset.pipeline.2.scale': '(128,64)',
    'train_dataloader.dataset.pipeline.3.crop_size': '(64,64)',
    'val_dataloader.dataset.pipeline.1.scale': '(128,64)',
    'test_dataloader.dataset.pipeline.1.scale': '(128,64)',
    'train_cfg.max_iters': '2',
    'train_cfg.val_interval': '2',
    'default_hooks.checkpoint.interval': '2',
    'default_hooks.logger.interval': '1',
} | {
    f'{part}_dataloader.{name}': value
    for part in ('train', 'val', 'test')
    for name, value in {
        'num_workers': '0',
        'persistent_workers': 'False',
    }.items()
}
DETECTOR = 'mask-rcnn_r50-ea5_fpn_2x_coco'
SMALL_DETECTOR = {
    'model.backbone.init_cfg': 'None',
    'model.train_cfg.rcnn.sampler.num': '32',
    # An untrained model is sure of nothing.
    'model.test_cfg.rcnn.score_thr': '0',
    'train_dataloader.dataset.pipeline.2.scale': '(96,96)',
    'val_dataloader.dataset.pipeline.1.scale': '(96,96)',
    'test_dataloader.dataset.pipeline.1.scale': '(96,96)',
    'train_cfg.max_epochs': '1',
    'default_hooks.logger.interval': '1',
} | {k: v for k, v in SMALL.items() if 'workers' in k}
OPTIONS = ['--cfg-options', *(f'{k}={v}' for k, v in SMALL.items())]

pytestmark = pytest.mark.skipif(
    not PYTHON, reason='MMSEG_ATTN_MIM names no Python: run `make test`'
)


def run(*command, cwd, ok=True, path=()):
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    if path:
        env['PYTHONPATH'] = os.pathsep.join(map(str, path))
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env | {'COLUMNS': '200'},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert not ok or done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with a tiny Cityscapes; the wheel is installed."""
    folder = tmp_path_factory.mktemp('mim')
    pip = functools.partial(run, PYTHON, '-m', 'pip', cwd=folder)
    args = os.environ.get('PIP_ARGS', '').split()  # as make passes them
    pip('wheel', *args, '--no-deps', '-w', 'dist', ROOT)
    (wheel,) = (folder / 'dist').glob('*.whl')
    pip('uninstall', '-y', 'mmseg_attn')
    pip('install', *args, f'{wheel}[{EXTRA}]')
    rng = np.random.default_rng(0)
    for part in ('train', 'val'):
        for name, kind in (('leftImg8bit', 'i'), ('gtFine', 'm')):
            (folder / f'data/cityscapes/{name}/{part}/x').mkdir(parents=True)
            for index in range(3):
                suffix = '.png' if kind == 'i' else '_labelTrainIds.png'
                shape = (64, 128, 3) if kind == 'i' else (64, 128)
                high = 256 if kind == 'i' else 19
                cv2.imwrite(
                    f'{folder}/data/cityscapes/{name}/{part}/x/'
                    f'{index}_{name}{suffix}',
                    rng.integers(0, high, shape, dtype=np.uint8),
                )
    return folder


@pytest.fixture(scope='module')
def mim():
    return Path(PYTHON).parent / 'mim'


@pytest.fixture(scope='module')
def installed(folder):
    """The package's folder in the environment, not in the checkout."""
    code = 'import mmseg_attn; print(mmseg_attn.__path__[0])'
    path = Path(run(PYTHON, '-c', code, cwd=folder).splitlines()[-1])
    assert path != ROOT / 'mmseg_attn'
    return path


@pytest.fixture(scope='module')
def trained(mim, folder):
    out = run(
        *(mim, 'train', 'mmseg_attn', f'{CONFIG}.py', '--gpus', '0'),
        *('--work-dir', 'work', *OPTIONS),
        cwd=folder,
    )
    checkpoint = folder / 'work/iter_2.pth'
    assert checkpoint.is_file(), out[-3000:]
    losses = re.findall(r'decode\.loss_ce: ([\d.]+)', out)
    assert len(losses) == 2 and all(float(loss) > 0 for loss in losses)
    return checkpoint


def test_train_and_test(mim, folder, trained):
    """Train by the config's name, then test what was saved."""
    out = run(
        *(mim, 'test', 'mmseg_attn', f'{CONFIG}.py', '--gpus', '0'),
        *('--checkpoint', trained, '--work-dir', 'work_test', *OPTIONS),
        cwd=folder,
    )
    assert float(re.search(r'mIoU: ([\d.]+)', out)[1]) >= 0


def test_run(mim, folder, installed, trained):
    """``mim run`` takes a script's name and paths."""
    config = installed / f'.mim/configs/ccnet/{CONFIG}.py'
    out = run(
        *(mim, 'run', 'mmseg_attn', 'test', config, trained),
        *('--work-dir', 'work_run', *OPTIONS),
        cwd=folder,
    )
    assert 'mIoU: ' in out


@pytest.mark.parametrize('method', ['ccnet', 'isanet'])
def test_search(mim, folder, method):
    """The zoo's rows are found by model and by config."""
    run(
        *(mim, 'search', 'mmseg_attn', '--model', method),
        *('--json', 'rows.json'),
        cwd=folder,
    )
    name = CONFIG.replace('ccnet', method)
    column = json.loads((folder / 'rows.json').read_text())['config']
    assert column[name] == f'configs/{method}/{name}.py'
    out = run(mim, 'search', 'mmseg_attn', '--config', name, cwd=folder)
    assert name in out


def test_zoo(folder):
    """The package's own commands find the rows in the wheel, once each."""
    out = run(PYTHON, '-m', 'mmseg_attn', 'zoo', 'list', cwd=folder)
    for method in ('ccnet', 'isanet'):
        name = CONFIG.replace('ccnet', method)
        assert sum(f' {name} ' in line for line in out.splitlines()) == 1


@pytest.fixture
def server(folder):
    """The address of a server of the folder's files."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=folder
    )
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


def test_download(mim, folder, installed, trained, server):
    """``mim download`` fetches a model's weights and its flat config."""
    shutil.copy(trained, folder / 'zoo-1234abcd.pth')
    url = f'{server}/zoo-1234abcd.pth'
    for metafile in installed.parent.glob('*/.mim/configs/ccnet/*.yaml'):
        text = metafile.read_text()
        mine = rf'(Name: {CONFIG}\n(?:.*\n)*?  Weights: )\S+'
        text, replaced = re.subn(mine, rf'\g<1>{url}', text)
        if 'mmseg_attn' in str(metafile):
            assert replaced == 1
            metafile.write_text(text)
    run(
        *(mim, 'download', 'mmseg_attn', '--config', CONFIG),
        *('--dest', 'zoo'),
        cwd=folder,
    )
    got = folder / 'zoo/zoo-1234abcd.pth'
    assert got.read_bytes() == trained.read_bytes()
    code = (
        'import sys; from mmengine import Config; '
        f'cfg = Config.fromfile("zoo/{CONFIG}.py"); '
        'assert "_base_" not in cfg; print(cfg.model.decode_head.type)'
    )
    out = run(PYTHON, '-c', code, cwd=folder)
    assert out.split()[-1] == 'mmseg_attn.CCHead'


def test_weights_that_were_trained_here(mim, folder, installed, server):
    """They are in the wheel, and mim has them where an address is given."""
    picture = folder / 'data/cityscapes/leftImg8bit/val/x/0_leftImg8bit.png'
    words = ('-m', 'mmseg_attn', 'predict', 'demo_ccnet', picture)
    out = run(PYTHON, *words, cwd=folder)
    assert '1 of 1 inputs done' in out
    name = 'ccnet-r2_r18-s4_1xb8-1k_demo-scenes-96x96'
    (weights,) = installed.glob('.mim/resources/zoo/demo_ccnet-*.pth')
    shutil.copy(weights, folder)
    # As the build writes it for MMSEG_ATTN_ZOO_URL.
    for metafile in installed.parent.glob('*/.mim/resources/zoo/*.yaml'):
        text = metafile.read_text()
        text = text.replace('Weights: resources/zoo/', f'Weights: {server}/')
        metafile.write_text(text)
    run(
        *(mim, 'download', 'mmseg_attn', '--config', name),
        *('--dest', 'ours'),
        cwd=folder,
    )
    got = folder / 'ours' / weights.name
    assert got.read_bytes() == weights.read_bytes()
    out = run(PYTHON, '-m', 'mmseg_attn', 'zoo', 'verify', got, cwd=folder)
    assert 'as in the metafile' in out


@pytest.mark.skipif(bool(missing_ops()), reason='no compiled operators')
def test_train_and_test_a_detector(mim, folder):
    """A packaged COCO config on a tiny COCO, with the annotations' classes.

    MMDetection and the compiled mmcv are those of the tests' environment;
    this project is the wheel.
    """
    from mmdet.datasets import CocoDataset

    (wheel,) = (folder / 'dist').glob('*.whl')
    args = ('--no-deps', '--target', 'site', wheel)
    run(PYTHON, '-m', 'pip', 'install', *args, cwd=folder)
    path = [folder / 'site', sysconfig.get_path('purelib')]
    write_folder(folder / 'scenes', train=4, val=4)
    coco = folder / 'data/coco'
    (coco / 'annotations').mkdir(parents=True)
    classes = CocoDataset.METAINFO['classes']
    for split in ('train', 'val'):
        shutil.copytree(
            folder / f'scenes/images/{split}', coco / f'{split}2017'
        )
        source = folder / f'scenes/annotations/{split}.json'
        content = json.loads(source.read_text())
        content['categories'] = [
            dict(id=number, name=name)
            for number, name in enumerate(classes, 1)
        ]
        target = coco / f'annotations/instances_{split}2017.json'
        target.write_text(json.dumps(content))
    options = [f'{k}={v}' for k, v in SMALL_DETECTOR.items()]
    options = ['--gpus', '0', '--cfg-options', *options]
    command = ('mmseg_attn', f'{DETECTOR}.py', '--work-dir')
    out = run(
        *(mim, 'train', *command, 'detector', *options), cwd=folder, path=path
    )
    losses = re.findall(r' loss_mask: ([\d.]+)', out)
    assert len(losses) == 2 and all(float(loss) > 0 for loss in losses)
    checkpoint = folder / 'detector/epoch_1.pth'
    trained = re.findall(r'bbox_mAP: ([\d.-]+)', out)
    out = run(
        *(mim, 'test', *command, 'tested', '--checkpoint', checkpoint),
        *options,
        cwd=folder,
        path=path,
    )
    tested = re.findall(r'bbox_mAP: ([\d.-]+)', out)
    assert tested and tested == trained
    assert 'segm_mAP: ' in out


def test_gridsearch(mim, folder):
    """``mim gridsearch`` trains once for each value."""
    run(
        *(mim, 'gridsearch', 'mmseg_attn', f'{CONFIG}.py', '--gpus', '0'),
        *('--work-dir', 'grid', '--yes', '--search-args'),
        *('--optim_wrapper.optimizer.lr 0.01 0.02', *OPTIONS),
        cwd=folder,
    )
    assert len(list(folder.glob('grid_search_*/iter_2.pth'))) == 2


def test_info(folder):
    """The commands work from the wheel, outside the checkout."""
    out = run(PYTHON, '-m', 'mmseg_attn', 'info', '--json', cwd=folder)
    report = json.loads(out)
    assert report['hosts']['family'] in ('onedl', 'original')
    assert report['hosts']['warning'] is None
