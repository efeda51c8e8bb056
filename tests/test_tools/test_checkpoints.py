# Copyright (c) mmseg_attn contributors.
"""Files that are no checkpoint, and checkpoints of other models."""

import io
import pickle
import re
import shutil
import subprocess
import tarfile
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmseg_attn.engine.checkpoint import load_checkpoint, load_weights
from mmseg_attn.engine.resume import find_latest
from mmseg_attn.engine.safe_checkpoint import AtomicLocalBackend
from mmseg_attn.errors import UserError


class Model(nn.Module):
    def __init__(self, classes=3, auxiliary=False):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)
        )
        self.head = nn.Conv2d(8, classes, 1)
        if auxiliary:
            self.auxiliary_head = nn.Conv2d(8, classes, 1)


class Code:
    def __reduce__(self):
        return print, ('this must not run',)


def saved(value, zipped=True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def tar(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w') as archive:
        entry = tarfile.TarInfo('storages')
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


WEIGHTS = {'weight': torch.arange(3000.0)}
WHOLE, OLD = saved(WEIGHTS), saved(WEIGHTS, zipped=False)
CONFIG = Config({'a': 1})
BAD = {
    'empty': (b'', 'is empty'),
    'page': (b'\n<!DOCTYPE html><html>404</html>', 'is a web page'),
    'pointer': (b'version https://git-lfs.github.com/spec/v1', 'Git LFS'),
    'text': (b'hello there', 'not a checkpoint of torch'),
    'pickle': (pickle.dumps({'a': 1}), 'pickle'),
    'tar': (tar(OLD), 'tar format'),
    'list': (saved([1, 2]), 'holds no weights.*got a list'),
    'no_weights': (saved({'epoch': 2}), 'holds no weights.*epoch'),
    'code': (saved({'w': torch.ones(2), 'x': Code()}), 'could run code'),
    'object': (saved({'w': torch.ones(2), 'x': CONFIG}), r'config\.Config'),
    'half': (WHOLE[: len(WHOLE) // 2], 'is cut off'),
    'almost': (WHOLE[:-20], 'is cut off'),
    'start': (WHOLE[:40], 'is cut off'),
    'old_half': (OLD[: len(OLD) // 2], 'is cut off'),
    'old_almost': (OLD[:-10], 'is cut off'),
    'old_start': (OLD[:20], 'is cut off'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_file_is_explained(name, tmp_path, capfd):
    content, message = BAD[name]
    path = tmp_path / f'{name}.pth'
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)
    assert 'must not run' not in capfd.readouterr().out


def test_missing_file_names_near_ones(tmp_path):
    (tmp_path / 'iter_2000.pth').write_bytes(WHOLE)
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(UserError, match=r'does not exist.*iter_2000\.pth'):
        load_checkpoint(tmp_path / 'iter_200.pth')
    with pytest.raises(UserError, match='nor does its folder'):
        load_checkpoint(tmp_path / 'nowhere' / 'iter_200.pth')
    with pytest.raises(UserError, match='is a folder.*iter_2000'):
        load_checkpoint(tmp_path)
    with pytest.raises(UserError, match=r'Its folder holds iter_2000\.pth\.'):
        load_checkpoint(tmp_path / 'best.pth')


def test_what_a_killed_training_left_is_not_named(tmp_path):
    left = tmp_path / '.iter_20.partial.pth'
    left.write_bytes(WHOLE[:40])
    with pytest.raises(UserError, match=r'does not exist\.$'):
        load_checkpoint(tmp_path / 'iter_20.pth')
    with pytest.raises(UserError, match=r'it holds no \.pth'):
        load_checkpoint(tmp_path)
    assert find_latest(tmp_path) is None
    AtomicLocalBackend().put(WHOLE, tmp_path / 'iter_20.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['iter_20.pth']


def test_what_mmengine_writes_can_be_loaded(tmp_path):
    path = tmp_path / 'mmengine.pth'
    history = HistoryBuffer([1.5, 2.5], [1, 2])
    torch.save(
        {
            'state_dict': WEIGHTS,
            'meta': {'palette': np.arange(6, dtype=np.uint8).reshape(2, 3)},
            'message_hub': {'loss': history, 'best': np.float64(0.5)},
        },
        path,
    )
    found = load_checkpoint(path)
    assert found['message_hub']['loss'].mean() == history.mean()
    assert found['message_hub']['best'] == 0.5
    assert found['meta']['palette'].tolist() == [[0, 1, 2], [3, 4, 5]]
    # Both formats of torch.
    path.write_bytes(OLD)
    assert torch.equal(load_checkpoint(path)['weight'], WEIGHTS['weight'])


def test_weights_are_loaded_from_each_layout(tmp_path):
    source = Model()
    state = source.state_dict()
    wrapped = {f'module.{key}': value for key, value in state.items()}
    for layout in (state, {'state_dict': state}, {'model': wrapped}):
        torch.save(layout, tmp_path / 'weights.pth')
        target = Model()
        load_weights(target, tmp_path / 'weights.pth')
        for key, value in target.state_dict().items():
            assert torch.equal(value, state[key]), key


def test_checkpoint_of_another_model_is_refused(tmp_path):
    path = tmp_path / 'other.pth'
    torch.save(Model(classes=19).state_dict(), path)
    with pytest.raises(UserError) as error:
        load_weights(Model(classes=3), path)
    text = str(error.value)
    assert 'of 10 weights 8 fit' in text
    assert 'head.weight, (19, 8, 1, 1) in the file' in text
    # Fine-tuning takes what fits ...
    target = Model(classes=3, auxiliary=True)
    head = target.head.weight.clone()
    with pytest.warns(
        UserWarning, match=r'gives 8 of the 12 .* anew: auxiliary_head, head\.'
    ):
        load_weights(target, path, strict=False)
    loaded = torch.load(path)['backbone.0.weight']
    assert torch.equal(target.backbone[0].weight, loaded)
    assert torch.equal(target.head.weight, head)
    # ... unless nothing does.
    torch.save({'encoder.weight': torch.ones(3)}, path)
    for strict in (True, False):
        with pytest.raises(UserError, match='0 fit.*10 missing.*1 unknown'):
            load_weights(Model(), path, strict=strict)


def test_only_surplus_weights_are_passed_over(tmp_path):
    path = tmp_path / 'weights.pth'
    weights = Model(auxiliary=True).state_dict()
    torch.save(weights, path)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load_weights(Model(), path)
    torch.save(weights | {'attention.weight': torch.ones(3)}, path)
    with pytest.warns(UserWarning, match=r'1 weights .* \(first: attention'):
        load_weights(Model(), path)
    torch.save(Model().state_dict(), path)
    with pytest.raises(UserError, match='2 missing.*auxiliary_head'):
        load_weights(Model(auxiliary=True), path)


def test_latest_checkpoint_survives_a_crash_and_a_move(tmp_path):
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    assert find_latest(work_dir) is None
    for number in (5, 10):
        (work_dir / f'iter_{number}.pth').write_bytes(WHOLE)
    note = work_dir / 'last_checkpoint'
    note.write_text(str(work_dir / 'iter_5.pth'))
    assert find_latest(work_dir) == str(work_dir / 'iter_5.pth')
    note.write_text('/moved/away/iter_10.pth')
    assert find_latest(work_dir) == str(work_dir / 'iter_10.pth')
    # In a copied folder the note still names the original's.
    shutil.copytree(work_dir, tmp_path / 'copy')
    note = tmp_path / 'copy' / 'last_checkpoint'
    note.write_text(str(work_dir / 'iter_10.pth'))
    copied = str(tmp_path / 'copy' / 'iter_10.pth')
    assert find_latest(tmp_path / 'copy') == copied
    note = work_dir / 'last_checkpoint'
    note.write_text('')  # killed while writing
    assert find_latest(work_dir) == str(work_dir / 'iter_10.pth')
    (work_dir / 'iter_10.pth').write_bytes(WHOLE[:100])
    assert find_latest(work_dir) == str(work_dir / 'iter_5.pth')
    (work_dir / 'iter_5.pth').write_bytes(b'')
    with pytest.raises(UserError, match='no checkpoint .* can be loaded'):
        find_latest(work_dir)


@contextmanager
def small_disk(path, size):
    """Mount a disk of so many bytes, where the user may."""
    path.mkdir()
    options = ['-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(path)]
    if (
        not shutil.which('mount')
        or subprocess.run(['mount', *options], capture_output=True).returncode
    ):
        pytest.skip('mounting a small disk needs root')
    try:
        yield
    finally:
        subprocess.run(['umount', '-l', str(path)], check=True)


def test_full_disk_leaves_the_old_file(tmp_path):
    with small_disk(tmp_path / 'disk', 65536):
        path = tmp_path / 'disk' / 'iter_1.pth'
        backend = AtomicLocalBackend()
        backend.put(WHOLE, path)
        with pytest.raises(UserError) as error:
            backend.put(bytes(1 << 20), path)
        assert re.search(
            r'No space left on device. It needs 1\.0 MiB, 0\.0 MiB are free',
            str(error.value),
        )
        assert path.read_bytes() == WHOLE
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_write_cut_short_leaves_the_old_file(tmp_path):
    """The same where a test may not mount: the kernel limits a file."""
    import resource

    path = tmp_path / 'iter_1.pth'
    backend = AtomicLocalBackend()
    backend.put(WHOLE, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))
    try:
        with pytest.raises(UserError, match='File too large.*1.0 MiB'):
            backend.put(bytes(1 << 20), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == WHOLE
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize('place', range(0, 64, 7))
def test_flipped_bytes_are_noticed(place, tmp_path):
    """torch itself takes 64 changed bytes among the numbers for weights."""
    path = tmp_path / 'weights.pth'
    content = bytearray(saved({'weight': torch.rand(30000)}))
    start = 20000 + 1000 * place
    for byte in range(start, start + 64):
        content[byte] ^= 0xFF
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)['weight'].shape == (30000,)
    with pytest.raises(UserError, match='is damaged: .*data/0 in it has a'):
        load_checkpoint(path)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_weights_that_are_not_finite_are_refused(value, dtype, tmp_path):
    path = tmp_path / 'weights.pth'
    state = {k: v.to(dtype) for k, v in Model().state_dict().items()}
    state['head.weight'][1, 2] = value
    state['head.bias'][:] = value
    torch.save({'state_dict': state, 'meta': {'nothing': np.nan}}, path)
    found = rf'the first is head\.weight \(1 of 24 {value}\)'
    for load in (load_checkpoint, CheckpointLoader.load_checkpoint):
        with pytest.raises(UserError, match=found):
            load(str(path))
    # Large numbers, whose sum is infinite, are none of these ...
    state['head.weight'][:] = torch.finfo(dtype).max
    # ... nor is a mask of an encoder of texts.
    state['head.bias'] = torch.full((4, 4), -np.inf).triu(1)
    torch.save({'state_dict': state}, path)
    assert load_checkpoint(path)


def test_a_program_of_torchscript_is_named(tmp_path):
    path = tmp_path / 'program.pth'
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(UserError, match='TorchScript'):
        load_checkpoint(path)
