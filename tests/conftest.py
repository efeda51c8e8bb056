# Copyright (c) mmseg_attn contributors.
import gc
import os
from pathlib import Path
from types import SimpleNamespace

if 'PYTEST_XDIST_WORKER' in os.environ:
    # Threads of several workers would wait for each other. Read when torch
    # is imported, here and in the commands that tests run.
    os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import torch

try:
    from mmengine.registry import init_default_scope
    from yapf.yapflib import yapf_api
except ImportError:  # a bare machine: operators are tested there
    init_default_scope = yapf_api = None

if torch.cuda.is_available():
    # What cuBLAS wants for torch's deterministic mode.
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
else:
    # Triton's kernels are tested in its interpreter, which must be chosen
    # before anything imports triton.
    os.environ.setdefault('TRITON_INTERPRET', '1')

GPU = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a CUDA device'
)


@pytest.fixture(autouse=True, scope='module')
def garbage_of_this_file_alone():
    """mmengine collects garbage for each dataset that it makes.

    Among all modules, and all that a worker has left of other files, this
    takes longer than most of the tests themselves.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Files with slow tests first, lest one worker waits for the other."""
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)


def pytest_sessionfinish():
    gc.unfreeze()  # what remains at the end Triton would call a leak


@pytest.fixture(autouse=True, scope='session')
def each_config_is_formatted_once():
    """mmengine formats the text of a config five times for a training."""
    if not yapf_api:
        return
    texts, plain = {}, yapf_api.FormatCode

    def format_once(text, **options):
        key = text, str(options)
        if key not in texts:
            texts[key] = plain(text, **options)
        return texts[key]

    yapf_api.FormatCode = format_once


@pytest.fixture(autouse=True)
def mmseg_scope():
    """Each test starts in mmseg's scope, whatever one before it chose."""
    if init_default_scope:
        init_default_scope('mmseg')


@pytest.fixture(params=['cpu', pytest.param('cuda', marks=GPU)])
def device(request, monkeypatch):
    """Each device in turn: tensors that name no other are made there.

    On CUDA convolutions are fp32 as products are: by default they are TF32.
    """
    if request.param == 'cpu':
        yield request.param
    else:
        monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
        with torch.device(request.param):
            yield request.param


@pytest.fixture(params=[False, pytest.param(True, marks=GPU)])
def tf32(request):
    """Whether fp32 products may be TF32."""
    torch.backends.cuda.matmul.allow_tf32 = request.param
    yield request.param
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.fixture
def deterministic():
    """The same bits in each run."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def blocks_for_small_problems_too(monkeypatch):
    """Tests are small: they shall see the way that large maps take."""
    monkeypatch.setattr('mmseg_attn.ops.core.axis.PLAIN_SCORES', 0)


@pytest.fixture
def golden():
    """Loads outputs of the papers' own code; they are not in the project."""
    real = os.environ.get('MMSEG_ATTN_REAL_DATA')
    folder = real and Path(real).parent / 'golden'
    if not folder or not folder.is_dir():
        pytest.skip("no folder 'golden' beside $MMSEG_ATTN_REAL_DATA")

    def load(name):
        with np.load(folder / f'{name}.npz') as arrays:
            return {k: torch.from_numpy(arrays[k]) for k in arrays.files}

    return load


@pytest.fixture
def products_of_tensor_cores(monkeypatch):
    """Triton's interpreter multiplies as a GPU's tensor cores do.

    Left alone it multiplies the bits of bf16 as integers and cuts off to
    bf16, where a GPU multiplies in fp32 and rounds to the nearest; and it
    does fp32 products exactly, where a GPU has ten bits of mantissa (TF32):
    the others are cut off, or rounded to make three such products of one
    (tf32x3).
    """
    if torch.cuda.is_available():
        return
    tl = pytest.importorskip('triton.language')
    from triton._C.libtriton import ir
    from triton.runtime import interpreter

    precisions = ir.INPUT_PRECISION

    def cast(self, x, target, plain=interpreter.InterpreterBuilder.cast_impl):
        a, b = x.dtype.scalar, target.scalar
        if (a, b) == (tl.float32, tl.bfloat16):
            bits = torch.from_numpy(x.data.copy()).bfloat16()
            bits = bits.view(torch.int16).numpy().view('uint16')
        elif (a, b) == (tl.bfloat16, tl.float32):
            bits = torch.from_numpy(x.data.view('int16').copy())
            bits = bits.view(torch.bfloat16).float().numpy()
        else:
            return plain(self, x, target)
        return interpreter.TensorHandle(bits, b)

    def tf32(data, half=0x1000):
        bits = data.view('uint32') + np.uint32(half)
        return (bits & np.uint32(0xFFFFE000)).view('float32')

    def dot(
        self, a, b, d, precision, *args,
        plain=interpreter.InterpreterBuilder.create_dot,
    ):  # fmt: skip
        if a.dtype.scalar == tl.bfloat16:
            a, b = (cast(self, x, tl.float32) for x in (a, b))
        elif a.dtype.scalar == tl.float32 and precision != precisions.IEEE:
            triple = precision == precisions.TF32x3
            half = 0x1000 if triple else 0
            x, y = (tf32(z.data, half) for z in (a, b))
            product = x @ y + d.data
            if triple:
                product += x @ tf32(b.data - y) + tf32(a.data - x) @ y
            return interpreter.TensorHandle(product, d.dtype.scalar)
        return plain(self, a, b, d, precision, *args)

    monkeypatch.setattr(interpreter.InterpreterBuilder, 'cast_impl', cast)
    monkeypatch.setattr(interpreter.InterpreterBuilder, 'create_dot', dot)


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """Config and checkpoint of a segmentor trained by a Runner on disk."""
    from mmengine.config import Config
    from mmengine.runner import Runner
    from tiny_segmentor import config_text, write_dataset

    root = tmp_path_factory.mktemp('trained')
    write_dataset(root / 'data', 24)
    config = root / 'tiny_discs.py'
    config.write_text(config_text(root / 'data'))
    cfg = Config.fromfile(config)
    cfg.work_dir = str(root / 'work')
    runner = Runner.from_cfg(cfg)
    # A gate at zero would let every attention test pass.
    runner.model.decode_head.cca.gamma.scale.data.fill_(0.5)
    runner.train()
    checkpoint = root / 'work' / 'iter_40.pth'
    return SimpleNamespace(config=str(config), checkpoint=str(checkpoint))
