# Copyright (c) mmseg_attn contributors.
import os
from pathlib import Path

if 'PYTEST_XDIST_WORKER' in os.environ:
    # Threads of several workers would wait for each other. Read when torch
    # is imported, here and in the commands that tests run.
    os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

if not torch.cuda.is_available():
    # Triton's kernels are tested in its interpreter, which must be chosen
    # before anything imports triton.
    os.environ.setdefault('TRITON_INTERPRET', '1')


@pytest.fixture(autouse=True)
def mmseg_scope():
    """Each test starts in mmseg's scope, whatever one before it chose."""
    init_default_scope('mmseg')


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
