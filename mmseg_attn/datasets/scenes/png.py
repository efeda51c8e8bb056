# Copyright (c) mmseg_attn contributors.
"""PNG files whose bytes depend on the pixels alone."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...files import whole


def write_png(
    path: str | Path,
    pixels: np.ndarray,
    palette: Sequence[Sequence[int]] | None = None,
) -> None:
    """Write a PNG file whose bytes depend on the pixels alone.

    Encoders differ in their compression between versions, so the pixels are
    stored uncompressed (RFC 1951, 3.2.4), as every decoder reads.

    Args:
        path: File to write.
        pixels: RGB (H, W, 3) or indices (H, W), uint8.
        palette: RGB colours of the indices.
    """
    height, width = pixels.shape[:2]
    # Filter type 0 in front of every line.
    lines = np.zeros((height, 1 + pixels[0].size), np.uint8)
    lines[:, 1:] = pixels.reshape(height, -1)
    raw = lines.tobytes()
    stored = bytearray(b'\x78\x01')
    for start in range(0, len(raw), 0xFFFF):
        block = raw[start : start + 0xFFFF]
        last = start + 0xFFFF >= len(raw)
        stored += struct.pack('<BHH', last, len(block), len(block) ^ 0xFFFF)
        stored += block
    stored += struct.pack('>I', zlib.adler32(raw))
    kind = 2 if pixels.ndim == 3 else 3 if palette is not None else 0
    chunks = [(b'IHDR', struct.pack('>2I5B', width, height, 8, kind, 0, 0, 0))]
    if kind == 3:
        chunks.append((b'PLTE', bytes(np.uint8(palette))))
    chunks += [(b'IDAT', bytes(stored)), (b'IEND', b'')]
    data = b'\x89PNG\r\n\x1a\n'
    for name, body in chunks:
        data += struct.pack('>I', len(body)) + name + body
        data += struct.pack('>I', zlib.crc32(name + body))
    with whole(path) as partial:
        partial.write_bytes(data)
