# Copyright (c) mmseg_attn contributors.
"""Write pictures and masks anew without compression, under the same names.

``decoded.py FOLDER COPY``. Many trainings on a machine with few cores would
spend their time on decompressing the same files. The contents are BMP; OpenCV
and Pillow, which read them, go by the content and not by the ending.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_attn.errors import UserError, run_command

ENDINGS = {'.jpg', '.png'}


def decode(pair: tuple[Path, Path]) -> None:
    """Copy one file.

    Args:
        pair: The file, and where the copy goes.

    Raises:
        UserError: The copy does not have the same pixels.
    """
    source, target = pair
    with Image.open(source) as image:
        pixels = np.asarray(image)
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target, format='BMP')
    with Image.open(target) as copy:
        if not np.array_equal(np.asarray(copy), pixels):
            raise UserError(f'{source} has not the same pixels as a BMP.')


def main() -> None:
    """Copy all pictures below a folder."""
    source, target = map(Path, sys.argv[1:])
    files = [path for path in source.rglob('*') if path.suffix in ENDINGS]
    pairs = [(path, target / path.relative_to(source)) for path in files]
    with ProcessPoolExecutor() as executor:
        list(executor.map(decode, pairs, chunksize=16))
    print(f'{len(pairs)} files')


if __name__ == '__main__':
    run_command(main)
