# Copyright (c) mmseg_attn contributors.
"""Time exported segmentors against PyTorch's eager network, in turns.

Each model is exported with random weights, or those of --checkpoint, to ONNX,
OpenVINO and PyTorch's own format, and with --int8 to ONNX in 8 bits. The
export itself checks that a file agrees with the network. Then one picture goes
through all of them, from its bytes to the logits at its size, on the threads
that --threads says.

    python tools/benchmark/deploy.py --threads 2 --out deploy
    python tools/benchmark/deploy.py --configs CONFIG --names 'CCNet R-18' \
        --checkpoint W.pth --int8 pictures/ --sizes 1x512x512
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import setup
from measure import time_in_turns
from options import parser, size
from report import save_table

from mmseg_attn.configs import load_config
from mmseg_attn.errors import run_command
from mmseg_attn.progress import quiet_imports
from mmseg_attn.runtime import open_session

with quiet_imports():
    from mmseg_attn.apis import load_model
    from mmseg_attn.export import export
    from mmseg_attn.export.network import PictureNetwork

R50 = 'ccnet_r50-d8_4xb2-40k_cityscapes-512x1024'
# The same head on the small backbone, whose last stage has 512 channels.
R18 = dict(
    backbone=dict(depth=18),
    decode_head=dict(in_channels=512, channels=128),
    auxiliary_head=None,
)
FORMATS = {'ONNX Runtime': '.onnx', 'OpenVINO': '.xml', '.pt2': '.pt2'}
HEADER = ['model', 'size', 'by', 'largest difference', 'time', 'of eager']
NOTE = (
    'From the bytes of a picture to the logits at its size. The largest '
    "difference is that of a logit from PyTorch's, over the largest logit or "
    '1, at three other sizes. Time: median of the rounds, in turns; of eager: '
    "how many times PyTorch's eager network takes as long."
)


class Timed:
    """One way to run a model.

    Args:
        name: In the table.
        run: Takes a picture (1, H, W, 3) uint8.
        picture: The picture.
    """

    def __init__(self, name, run, picture):
        self.name, self.run, self.picture = name, run, picture

    def seconds(self):
        start = time.perf_counter()
        self.run(self.picture)
        return {'total': time.perf_counter() - start}


def models(args):
    """Name and config of each model."""
    if args.configs:
        names = args.names or [Path(name).stem for name in args.configs]
        configs = map(load_config, args.configs)
        return dict(zip(names, configs, strict=True))
    small = load_config(R50)
    small.merge_from_dict({'model': R18})
    return {'CCNet R-50-D8': load_config(R50), 'CCNet R-18-D8': small}


def random_weights(config, folder):
    """A checkpoint of random weights, as large as after a training."""
    torch.manual_seed(0)
    model = load_model(config, None, device='cpu')
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_()
        elif name.endswith('conv_seg'):  # what gives the logits
            torch.nn.init.normal_(module.weight, std=0.5)
    path = Path(folder, 'random.pth')
    torch.save({'state_dict': model.state_dict()}, path)
    return path


def exported(config, args, folder):
    """The eager network, and each file's session with its difference."""
    checkpoint = args.checkpoint or random_weights(config, folder)
    model = load_model(config, checkpoint, device='cpu')
    eager = PictureNetwork(model).requires_grad_(False).eval()
    files = {}
    for name, ending in FORMATS.items():
        found = export(config, checkpoint, Path(folder, f'model{ending}'))
        files[name] = found
    if args.int8:
        path = Path(folder, 'int8.onnx')
        found = export(config, checkpoint, path, int8=[args.int8])
        files['ONNX Runtime, int8'] = found
    return eager, files


def timed(name, config, shape, args):
    """Lines of all ways to run a model, and their figures."""
    batch, height, width = map(int, shape.split('x'))
    noise = np.random.default_rng(0)
    picture = noise.integers(0, 256, (batch, height, width, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        eager, files = exported(config, args, folder)

        @torch.inference_mode()
        def run(pictures):
            return eager(torch.from_numpy(pictures)).numpy()

        ways = [Timed('PyTorch, eager', run, picture)]
        for way, found in files.items():
            ways.append(Timed(way, open_session(found.path), picture))
        for way in ways:  # the first call prepares
            way.seconds()
        times = time_in_turns(ways, args.repeat, args.budget)
    base = times[ways[0].name]['total']['median']
    lines = []
    for way in ways:
        found = files.get(way.name)
        median = times[way.name]['total']['median']
        far = max(d.values for d in found.differences) if found else None
        lines.append(
            [
                name,
                shape,
                way.name,
                '' if far is None else f'{far:.1e}',
                f'{1e3 * median:.0f} ms',
                f'{base / median:.2f} x',
            ]
        )
    return lines, dict(size=shape, seconds=times)


def parse_args(arguments=None):
    result = parser(__doc__)
    result.add_argument('--configs', nargs='+', metavar='CONFIG')
    result.add_argument('--names', nargs='+', help='of these in the table')
    result.add_argument('--checkpoint', type=Path, help='of all configs')
    result.add_argument(
        '--int8', type=Path, help='pictures to quantise by, of ONNX'
    )
    result.add_argument('--sizes', nargs='+', type=size, default=['1x512x512'])
    result.add_argument(
        '--budget', type=float, default=120, help='seconds for all rounds'
    )
    args = result.parse_args(arguments)
    if args.names and len(args.names) != len(args.configs or []):
        result.error('--names: expected one for each of --configs')
    return args


def main(arguments=None):
    args = parse_args(arguments)
    _, _, info = setup(args)
    del info['channels']
    body, rows = [], {}
    for name, config in models(args).items():
        rows[name] = []
        for shape in args.sizes:
            print(name, shape, file=sys.stderr, flush=True)
            lines, figures = timed(name, config, shape, args)
            body += lines
            rows[name].append(figures)
    data = dict(machine=info, models=rows)
    save_table(HEADER, body, NOTE, data, args.out, 'deploy')


if __name__ == '__main__':
    run_command(main)
