# Copyright (c) mmseg_attn contributors.
"""PNG files written row by row, or with bytes that depend on pixels alone."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .files import whole

SIGNATURE = b'\x89PNG\r\n\x1a\n'


def write_rows(
    path: Path,
    bands: Iterable[np.ndarray],
    height: int,
    width: int,
    palette: Sequence[Sequence[int]] | None = None,
) -> None:
    """Write a picture of one channel of which there is never more than a band.

    Args:
        path: File to write.
        bands: (rows, width) uint8, or with 16 bits uint16, from above to
            below.
        height: The picture's, in pixels.
        width: Likewise.
        palette: RGB colours of values of 8 bits; None: they are grey.
    """
    packed = zlib.compressobj()
    with open(path, 'wb') as file:
        for band in bands:
            if file.tell() == 0:
                file.write(_head(height, width, band, palette))
            if data := packed.compress(_lines(band)):
                file.write(_chunk(b'IDAT', data))
        file.write(_chunk(b'IDAT', packed.flush()) + _chunk(b'IEND', b''))


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
    raw = _lines(pixels)
    stored = bytearray(b'\x78\x01')
    for start in range(0, len(raw), 0xFFFF):
        block = raw[start : start + 0xFFFF]
        last = start + 0xFFFF >= len(raw)
        stored += struct.pack('<BHH', last, len(block), len(block) ^ 0xFFFF)
        stored += block
    stored += struct.pack('>I', zlib.adler32(raw))
    data = _head(*pixels.shape[:2], pixels, palette)
    data += _chunk(b'IDAT', bytes(stored)) + _chunk(b'IEND', b'')
    with whole(path) as partial:
        partial.write_bytes(data)


def _head(
    height: int,
    width: int,
    pixels: np.ndarray,
    palette: Sequence[Sequence[int]] | None,
) -> bytes:
    """What stands before the pixels: signature, size and kind, palette."""
    bits = 8 * pixels.itemsize
    kind = 2 if pixels.ndim == 3 else 0 if palette is None else 3
    sizes = struct.pack('>2I5B', width, height, bits, kind, 0, 0, 0)
    head = SIGNATURE + _chunk(b'IHDR', sizes)
    return head + (
        _chunk(b'PLTE', bytes(np.uint8(palette))) if kind == 3 else b''
    )


def _lines(pixels: np.ndarray) -> bytes:
    """Pixels as PNG has them, with filter type 0 in front of every line."""
    pixels = pixels.astype(pixels.dtype.newbyteorder('>'))
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    lines = np.zeros((len(rows), 1 + rows.shape[1]), np.uint8)
    lines[:, 1:] = rows
    return lines.tobytes()


def _chunk(name: bytes, body: bytes) -> bytes:
    check = struct.pack('>I', zlib.crc32(name + body))
    return struct.pack('>I', len(body)) + name + body + check
