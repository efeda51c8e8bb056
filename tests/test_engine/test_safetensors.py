# Copyright (c) mmseg_attn contributors.
"""Files of the format safetensors, put together here by its description."""

import json
from collections import OrderedDict

import pytest
import torch

from mmseg_attn.engine.pretrained import read_checkpoint
from mmseg_attn.engine.safetensors_files import safetensors_of
from mmseg_attn.errors import UserError

# 1.5, -2 and 3 as little-endian float32 and bfloat16.
FLOAT32 = bytes.fromhex('0000c03f 000000c0 00004040')
BFLOAT16 = bytes.fromhex('c03f 00c0 4040')
FOUND = {
    'a': torch.tensor([[1.5, -2.0, 3.0]]),
    'b': torch.tensor([1.5, -2.0, 3.0], dtype=torch.bfloat16),
    'n': torch.tensor(258),
    'e': torch.empty(0, 4),
}
HEADER = {
    'a': dict(dtype='F32', shape=[1, 3], data_offsets=[0, 12]),
    'b': dict(dtype='BF16', shape=[3], data_offsets=[12, 18]),
    'n': dict(dtype='I64', shape=[], data_offsets=[18, 26]),
    'e': dict(dtype='F32', shape=[0, 4], data_offsets=[26, 26]),
}
NUMBERS = FLOAT32 + BFLOAT16 + bytes([2, 1, 0, 0, 0, 0, 0, 0])


def write(path, header=HEADER, numbers=NUMBERS, text=None):
    text = json.dumps(header).encode() if text is None else text
    path.write_bytes(len(text).to_bytes(8, 'little') + text + numbers)
    return path


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value) and found[key].is_contiguous()


def test_a_file_of_others_is_read(tmp_path):
    """Whatever its name, and with a header whose length begins as '<'."""
    header = {'__metadata__': {'format': 'pt'}, **HEADER}
    for name in ('a.safetensors', 'b.pth', 'c.part'):
        assert_same(read_checkpoint(write(tmp_path / name, header)), FOUND)
    text = json.dumps(HEADER).encode()
    text += b' ' * ((ord('<') - len(text)) % 256)
    assert_same(read_checkpoint(write(tmp_path / 'd', text=text)), FOUND)


def test_ours_say_what_they_hold(tmp_path):
    weights = OrderedDict(FOUND, h=torch.rand(2, 3).half())
    weights._metadata = {'': {'version': 1}, 'bn': {'version': 2}}
    meta = {'cfg': 'model = 1', 'dataset_meta': {'classes': ['a', 'ä']}}
    path = tmp_path / 'ours.safetensors'
    path.write_bytes(safetensors_of({'state_dict': weights, 'meta': meta}))
    found = read_checkpoint(path)
    assert found['meta'] == meta
    assert found['state_dict']._metadata == weights._metadata
    assert_same(found['state_dict'], weights)
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    (tmp_path / 'b.pth').write_bytes(changed)  # whatever its name
    with pytest.raises(UserError, match='b.pth is damaged'):
        read_checkpoint(tmp_path / 'b.pth')
    # As the description has it: JSON, aligned numbers, texts alone as notes.
    content = path.read_bytes()
    size = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8 : 8 + size])
    assert size % 8 == 0
    assert {type(v) for v in header.pop('__metadata__').values()} == {str}
    for key, entry in header.items():
        begin, end = entry['data_offsets']
        assert begin % weights[key].itemsize == 0
        assert entry['shape'] == list(weights[key].shape)
        bits = weights[key].reshape(-1).view(torch.uint8).tolist()
        assert list(content[8 + size + begin : 8 + size + end]) == bits


def changed(key, **entry):
    return {**HEADER, key: {**HEADER[key], **entry}}


@pytest.mark.parametrize(
    'header',
    [
        changed('a', data_offsets=[0, 8]),
        changed('a', shape=[1, 2]),
        changed('a', shape=[-1, -3]),
        changed('a', shape=[10**30]),
        changed('a', shape='13'),
        changed('a', dtype='F99'),
        changed('b', data_offsets=[6, 12]),  # shares bytes with a
        changed('n', data_offsets=[18.5, 26.5]),
        changed('n', data_offsets=[1000, 1008]),
        changed('n', data_offsets=[-8, 0]),
        changed('n', other=1),
        {key: HEADER[key] for key in 'abe'},  # bytes of nobody
        {**HEADER, 'x': 3},
        {**HEADER, '__metadata__': {'mmseg_attn': '{'}},
        {**HEADER, '__metadata__': {'mmseg_attn': '{"versions": 3}'}},
        [],
    ],
    ids=str,
)
def test_what_does_not_agree_is_refused(header, tmp_path):
    path = write(tmp_path / 'bad.safetensors', header)
    with pytest.raises(UserError, match='bad.safetensors'):
        read_checkpoint(path)


def test_cut_off(tmp_path):
    content = write(tmp_path / 'whole').read_bytes()
    for end in (len(content) - 1, len(content) - 26, 40, 9, 5):
        path = tmp_path / 'cut.safetensors'
        path.write_bytes(content[:end])
        with pytest.raises(UserError, match='cut.safetensors'):
            read_checkpoint(path)
    path.write_bytes(content + b'x')
    with pytest.raises(UserError, match='damaged'):
        read_checkpoint(path)
