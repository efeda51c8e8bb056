# Copyright (c) mmseg_attn contributors.
"""Weights in the format safetensors, which can hold no code.

Eight bytes with the length of a header, the header as JSON (each tensor's
type, shape and place), and the numbers. Source: the format's description,
https://github.com/huggingface/safetensors#format.
"""

import hashlib
import json
import os
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError

TYPES = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
    'I64': torch.int64,
    'I32': torch.int32,
    'I16': torch.int16,
    'I8': torch.int8,
    'U8': torch.uint8,
    'BOOL': torch.bool,
}
NAMES = {kind: name for name, kind in TYPES.items()}
# What a wrong header leads to.
WRONG = (
    *(ValueError, TypeError, KeyError, AttributeError, OverflowError),
    *(RuntimeError, RecursionError),
)
# The entry of the header for what is no tensor, and ours in it.
NOTES, OWN = '__metadata__', 'mmseg_attn'
# Of the numbers, in ours: torch's zip files have sums, this format has none.
SUM = 'sha256'


def is_safetensors(path: str | Path) -> bool:
    """Whether a file begins as one of this format."""
    with open(path, 'rb') as stream:
        start = stream.read(10)
    size = int.from_bytes(start[:8], 'little')
    return start[8:9] == b'{' and 8 + size <= os.path.getsize(path)


def read_safetensors(
    path: str | Path, name: str, device: str | torch.device = 'cpu'
) -> dict:
    """Read a file of this format.

    Args:
        path: The file.
        name: What to call it in messages.
        device: Where the tensors are to be.

    Returns:
        The state dict; of a file of :func:`safetensors_of` a dict of
        ``state_dict`` and ``meta``.

    Raises:
        UserError: The header and the file do not agree.
    """
    content = bytearray(Path(path).read_bytes())
    try:
        weights, meta = _parse(content)
    except WRONG as error:
        raise UserError(
            f'checkpoint {name} is damaged, or no file of the format '
            f'safetensors ({len(content):,} bytes): copy or download it '
            'again.'
        ) from error
    for key, value in weights.items():
        weights[key] = value.to(device)
    if meta is None:
        return weights
    return {'state_dict': weights, 'meta': meta}


def _parse(content: bytearray) -> tuple[OrderedDict, dict | None]:
    start = 8 + int.from_bytes(content[:8], 'little')
    header = json.loads(content[8:start].decode())
    notes = header.pop(NOTES, {})
    weights = OrderedDict(
        (key, _tensor(content, start, **entry))
        for key, entry in header.items()
    )
    # Each byte belongs to one tensor: nothing is hidden, nothing is shared.
    end = 0
    for begin, following in sorted(e['data_offsets'] for e in header.values()):
        if begin != end:
            raise ValueError('a gap, or tensors that overlap')
        end = following
    if start + end != len(content):
        raise ValueError('cut off, or longer than its tensors')
    if OWN not in notes:
        return weights, None
    meta = json.loads(notes[OWN])
    stated = meta.pop(SUM, None)
    if stated and stated != _sum(memoryview(content)[start:]):
        raise ValueError('numbers that have changed')
    versions = meta.pop('versions').items()
    weights._metadata = {key: dict(value) for key, value in versions}
    return weights, meta


def _tensor(
    content: bytearray,
    start: int,
    dtype: str,
    shape: list[int],
    data_offsets: list[int],
) -> Tensor:
    begin, end = (start + offset for offset in data_offsets)
    kind = TYPES[dtype]
    numbers = torch.Size(shape).numel()
    if not start <= begin <= end <= len(content) or min(shape, default=0) < 0:
        raise ValueError('outside of the file')
    if end - begin != numbers * kind.itemsize:
        raise ValueError('another size than that of its shape')
    if not numbers:
        return torch.empty(shape, dtype=kind)
    found = torch.frombuffer(content, dtype=kind, count=numbers, offset=begin)
    return found.reshape(shape).clone()


def safetensors_of(checkpoint: dict) -> bytes:
    """Put a checkpoint of plain facts into this format.

    Args:
        checkpoint: ``state_dict``, and ``meta`` of what JSON knows.

    Returns:
        Content of the file.
    """
    weights = checkpoint['state_dict']
    versions = getattr(weights, '_metadata', {})
    header, numbers, end = {NOTES: {}}, [], 0
    # The largest numbers first, so that all are aligned.
    for key in sorted(weights, key=lambda key: -weights[key].itemsize):
        tensor = weights[key].detach().cpu().contiguous()
        begin, end = end, end + tensor.nbytes
        header[key] = {
            'dtype': NAMES[tensor.dtype],
            'shape': list(tensor.shape),
            'data_offsets': [begin, end],
        }
        numbers.append(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    numbers = b''.join(numbers)
    own = {**checkpoint['meta'], 'versions': versions, SUM: _sum(numbers)}
    header[NOTES] = {'format': 'pt', OWN: json.dumps(own)}
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    size = len(text).to_bytes(8, 'little')
    return size + text + numbers


def _sum(numbers: bytes | memoryview) -> str:
    return hashlib.sha256(numbers).hexdigest()
