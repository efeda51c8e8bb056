# Copyright (c) mmseg_attn contributors.
"""Memory that predict --slide takes, by the height of the picture.

Each picture is noise, a GeoTIFF of 8 bits in tiles of 512, and is predicted
by the command itself in a process of its own, with random weights.

    python tools/benchmark/heights.py --threads 1 --out heights
    python tools/benchmark/heights.py --heights 2000 4000 --width 10000
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from deploy import random_weights
from machine import prepare
from options import parser, positive
from report import save_table

from mmseg_attn.configs import load_config
from mmseg_attn.errors import UserError, need_package, run_command
from mmseg_attn.streaming import Windows

CONFIG = 'ccnet-r2_r18-s4_1xb8-1k_demo-scenes-96x96'
TILE = 512
# The process tells its own peak: that of a child begins with its parent's.
CODE = (
    'import sys\n'
    'from mmseg_attn.__main__ import main\n'
    'code = main(sys.argv[1:])\n'
    "print(open('/proc/self/status').read())\n"
    'sys.exit(code)\n'
)
HEADER = ['picture (height x width)', 'windows', 'peak memory', 'time']
NOTE = (
    'VmHWM of the process of predict --slide {window}, {classes} classes, '
    '{config} with random weights, one picture of noise (GeoTIFF, 8 bits, '
    'tiles of 512); the time is that of the whole command.'
)


def write_noise(path, height, width):
    """Write a picture by rows of tiles, so that it is never held whole."""
    rasterio = need_package('this tool', 'rasterio')
    profile = dict(driver='GTiff', dtype='uint8', count=3, tiled=True)
    profile |= dict(height=height, width=width)
    profile |= dict(blockxsize=TILE, blockysize=TILE, crs='EPSG:32632')
    place = rasterio.transform.from_origin(500_000, 5_000_000, 1, 1)
    noise = np.random.default_rng(0)
    with rasterio.open(path, 'w', transform=place, **profile) as picture:
        for top in range(0, height, TILE):
            rows = min(TILE, height - top)
            part = rasterio.windows.Window(0, top, width, rows)
            shape = 3, rows, width
            picture.write(noise.integers(0, 256, shape, np.uint8), window=part)


def measured(height, args, weights, folder):
    """Figures of the prediction of a picture."""
    picture = folder / f'{height}.tif'
    write_noise(picture, height, args.width)
    words = [args.config, weights, picture, '--out', folder / str(height)]
    words += ['--slide', args.window, '--device', 'cpu', '--cfg-options']
    words.append(f'model.decode_head.num_classes={args.classes}')
    threads = {'OMP_NUM_THREADS': str(args.threads)} if args.threads else {}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, '-c', CODE, 'predict', *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | threads,
    )
    seconds = time.perf_counter() - start
    picture.unlink()
    if done.returncode:
        raise UserError(f'predict failed: {done.stderr.strip()}')
    (peak,) = re.findall(r'VmHWM:\s+(\d+) kB', done.stdout)
    return dict(height=height, peak_bytes=1024 * int(peak), seconds=seconds)


def line(found, args):
    """A row of the table."""
    window = args.window, args.window
    step = (args.window * 2 // 3,) * 2  # as of --slide
    rows, columns = Windows(window, step).cut(found['height'], args.width)
    return [
        f'{found["height"]:,} x {args.width:,}',
        str(len(rows.starts) * len(columns.starts)),
        f'{found["peak_bytes"] / 2**20:.0f} MiB',
        f'{found["seconds"]:.0f} s',
    ]


def main(arguments=None):
    options = parser(__doc__)
    add = options.add_argument
    add('--config', default=CONFIG)
    add('--heights', nargs='+', type=positive, default=[2000, 4000, 10000])
    add('--width', type=positive, default=10000)
    add('--window', type=positive, default=512)
    add('--classes', type=positive, default=15)
    args = options.parse_args(arguments)
    info, rows = prepare(args), []
    with tempfile.TemporaryDirectory() as name:
        config = load_config(
            args.config, {'model.decode_head.num_classes': args.classes}
        )
        weights = random_weights(config, name)
        for height in args.heights:
            print(height, file=sys.stderr, flush=True)
            rows.append(measured(height, args, weights, Path(name)))
    body = [line(found, args) for found in rows]
    data = dict(machine=info, pictures=rows)
    save_table(
        HEADER, body, NOTE.format(**vars(args)), data, args.out, 'heights'
    )


if __name__ == '__main__':
    run_command(main)
