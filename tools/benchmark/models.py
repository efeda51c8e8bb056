# Copyright (c) mmseg_attn contributors.
"""Time training steps of whole models against the host's own heads.

The same network, the same weights, the same pictures: forward to the losses
and backward to all gradients, in turns, after a check that both agree. With
--train both are trained on the same real pictures in the same order.

    python tools/benchmark/models.py --out models
    python tools/benchmark/models.py --sizes 2x769x769 --amp --channels-last
    python tools/benchmark/models.py --amp float16 --train 150 --data FOLDER
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from host import criss_cross_layer
from machine import autocast, setup
from measure import Contestant, as_it_is, time_in_turns, verify
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from options import add_amp, parser, size
from report import save_table
from training import load, train

from mmseg_attn.configs import load_config
from mmseg_attn.errors import run_command
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg.models.decode_heads import cc_head
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

CONFIGS = [
    'ccnet_r50-d8_4xb2-40k_cityscapes-512x1024',
    'isanet_r50-d8_4xb2-40k_cityscapes-512x1024',
]
GAMMA = 0.7  # at 0, as it starts, the attention is multiplied away
HEADER = ['model', 'size', 'layout', 'ours', 'host forward', 'host step']
HEADER += ['our peak', "host's peak"]
NOTE = (
    'A training step without the optimizer: losses of decode and auxiliary '
    'head and all gradients, random labels. Time and peak memory of the host '
    'are multiples of ours: above 1 the host is slower or larger.'
)
TRAINED = (
    'Mean losses of the tenths of a training from the same random start, on '
    'the same pictures in the same order, and its time.'
)


class Losses(torch.nn.Module):
    """The sum of a segmentor's losses for pictures (B, 3, H, W).

    Args:
        model: The segmentor.
        labels: (B, 1, H, W); others may be set later.
    """

    def __init__(self, model, labels):
        super().__init__()
        self.model = model
        self.labels = labels

    def forward(self, pictures):
        samples = [
            SegDataSample(gt_sem_seg=PixelData(data=x)) for x in self.labels
        ]
        losses = self.model.loss(pictures, samples)
        return sum(v for k, v in losses.items() if 'loss' in k)


def build(model, kind):
    """A segmentor without dropout, which would differ between the two."""
    model = copy.deepcopy(model)
    model.decode_head.type = kind
    model.decode_head.dropout_ratio = 0
    model.auxiliary_head.dropout_ratio = 0
    model.pretrained = None
    model.data_preprocessor.pop('size', None)
    # The host finds its layer only where mmcv's operators are compiled.
    with patch.object(cc_head, 'CrissCrossAttention', criss_cross_layer()):
        built = MODELS.build(model)
    for name, parameter in built.named_parameters():
        if name.endswith('gamma.scale'):
            parameter.data.fill_(GAMMA)
    return revert_sync_batchnorm(built).train()


def contestants(config, batch, height, width, args):
    """Ours and the host's model of a config."""
    cfg = load_config(config)
    init_default_scope('mmseg')
    torch.manual_seed(0)
    kind = cfg.model.decode_head.type
    ours = build(cfg.model, kind)
    host = build(cfg.model, kind.removeprefix('mmseg_attn.'))
    host.load_state_dict(ours.state_dict())
    layout = torch.contiguous_format
    if args.channels_last:
        layout = torch.channels_last
    pictures = torch.randn(batch, 3, height, width, device=args.device)
    pictures = pictures.contiguous(memory_format=layout)
    classes = cfg.model.decode_head.num_classes
    shape = batch, 1, height, width
    labels = torch.randint(0, classes, shape, device=args.device)
    with autocast(args):
        return [
            Contestant(
                name,
                Losses(model, labels).to(args.device, memory_format=layout),
                [pictures],
                as_it_is,
                has_relu=True,
                graphs={},  # the losses read numbers back
            )
            for name, model in (('ours', ours), ('host', host))
        ]


def parse_args(arguments=None):
    result = parser(__doc__)
    add_amp(result)
    result.add_argument('--configs', nargs='+', default=CONFIGS)
    result.add_argument('--sizes', nargs='+', type=size, default=['2x512x512'])
    result.add_argument('--channels-last', action='store_true')
    result.add_argument(
        '--budget', type=float, default=240, help='seconds of timing a model'
    )
    result.add_argument('--train', type=int, metavar='STEPS')
    result.add_argument(
        '--data', type=Path, help='folder with images/train and masks/train'
    )
    args = result.parse_args(arguments)
    if bool(args.train) != bool(args.data):
        result.error('--train and --data need each other')
    return args


def timed(config, shape, args):
    """Cells of a line, and the figures."""
    pair = contestants(config, *map(int, shape.split('x')), args)
    verify(pair[1], pair[0].results(), 5e-2 if args.amp else 1e-2)
    memory = {c.name: c.memory()[0] for c in pair}
    times = time_in_turns(pair, args.repeat, args.budget)

    def median(name, kind):
        return times[name][kind]['median']

    cells = [
        config,
        shape,
        'NHWC' if args.channels_last else 'NCHW',
        f'{1e3 * median("ours", "total"):.1f} ms',
        *(
            f'{median("host", k) / median("ours", k):.2f} x'
            for k in ('forward', 'total')
        ),
        f'{memory["ours"] / 2**20:.0f} MiB',
        f'{memory["host"] / memory["ours"]:.2f} x',
    ]
    return cells, dict(size=shape, seconds=times, peak_bytes=memory)


def trained(config, shape, args):
    """Lines of both, and the figures."""
    batch, height, width = map(int, shape.split('x'))
    pictures, masks = load(args.data, height, width)
    pair = contestants(config, batch, height, width, args)
    amp = args.amp and getattr(torch, args.amp)
    lines, rows = [], {}
    for c in pair:
        found = train(c.function, pictures, masks, batch, args.train, amp)
        rows[c.name] = found
        losses = ' '.join(f'{x:.3f}' for x in found['losses'])
        seconds = f'{found["seconds"]:.1f} s'
        lines.append([config, shape, c.name, losses, seconds])
    return lines, dict(size=shape, steps=args.train, trained=rows)


def main(arguments=None):
    args = parse_args(arguments)
    _, _, info = setup(args)
    del info['channels']
    body, rows = [], {}
    for config in args.configs:
        rows[config] = []
        for shape in args.sizes:
            print(config, shape, file=sys.stderr, flush=True)
            if args.train:
                lines, figures = trained(config, shape, args)
                body += lines
            else:
                line, figures = timed(config, shape, args)
                body.append(line)
            rows[config].append(figures)
    data = dict(machine=info, models=rows)
    if args.train:
        header = ['model', 'size', 'head', 'losses', 'time']
        save_table(header, body, TRAINED, data, args.out, 'training')
    else:
        save_table(HEADER, body, NOTE, data, args.out, 'models')


if __name__ == '__main__':
    run_command(main)
