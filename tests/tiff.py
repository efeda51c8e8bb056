# Copyright (c) mmseg_attn contributors.
"""Write TIFF files of any values and number of bands."""

import struct

import numpy as np

FORMATS = {'u': 1, 'i': 2, 'f': 3}


def write_tiff(path, *pages, turn=1):
    """Write (H, W) or (H, W, bands) arrays as pages of a TIFF file."""
    data, start = b'II*\0' + struct.pack('<I', 8), 8
    for number, array in enumerate(pages, start=1):
        array = np.ascontiguousarray(array)
        height, width = array.shape[:2]
        bands = array.size // (height * width)
        each = (
            [8 * array.itemsize] * bands,
            [FORMATS[array.dtype.kind]] * bands,
        )
        tags = {
            256: width,
            257: height,
            258: each[0],
            259: 1,
            262: 2 if bands in (3, 4) else 1,
            273: None,
            274: turn,
            277: bands,
            278: height,
            279: array.nbytes,
            339: each[1],
        }
        behind = start + 2 + 12 * len(tags) + 4
        extra, entries = b'', b''
        for tag, value in tags.items():
            if isinstance(value, list):
                packed = struct.pack(f'<{bands}H', *value)
                if bands > 2:
                    place = struct.pack('<I', behind + len(extra))
                    extra, packed = extra + packed, place
                entries += struct.pack('<HHI', tag, 3, bands)
                entries += packed.ljust(4, b'\0')
            else:
                if value is None:
                    value = behind + 4 * bands * (bands > 2)
                entries += struct.pack('<HHII', tag, 4, 1, value)
        body = extra + array.tobytes()
        after = behind + len(body) if number < len(pages) else 0
        data += struct.pack('<H', len(tags)) + entries
        data += struct.pack('<I', after) + body
        start = len(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
