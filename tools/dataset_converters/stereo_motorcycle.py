# Copyright (c) mmseg_attn contributors.
"""Write the pair of pictures that comes with scikit-image.

Middlebury's Motorcycle at a quarter of its size, as a folder that
``StereoFolder`` reads, with ``calib.txt`` for depth. Needs scikit-image.

    python tools/dataset_converters/stereo_motorcycle.py data/motorcycle
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from mmseg_attn.errors import UserError, run_command
from mmseg_attn.files import whole
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.pictures.disparity_files import write_pfm

# As scikit-image's documentation of stereo_motorcycle() gives it; baseline in
# millimetres.
CALIBRATION = 'focal=994.978\nbaseline=193.001\ndoffs=31.086\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='folder to write')
    out = parser.parse_args().out
    try:
        from skimage.data import stereo_motorcycle
    except ImportError:
        raise UserError(
            'scikit-image is not installed: pip install scikit-image'
        ) from None
    left, right, disparity = stereo_motorcycle()
    for name, picture in (('left', left), ('right', right)):
        with whole(out / name / 'motorcycle.png') as path:
            Image.fromarray(picture).save(path)
    with whole(out / 'disparity/motorcycle.pfm') as path:
        write_pfm(path, np.where(np.isnan(disparity), np.inf, disparity))
    height, width = disparity.shape
    size = f'width={width}\nheight={height}\n'
    with whole(out / 'calib.txt') as path:
        path.write_text(CALIBRATION + size, encoding='utf-8')
    print(f'The pair is in {out}')


if __name__ == '__main__':
    run_command(main)
