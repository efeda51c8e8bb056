# Copyright (c) mmseg_attn contributors.
"""Time training steps of whole models against the host's own heads.

The same network, the same weights, the same pictures: forward to the losses
and backward to all gradients, in turns, after a check that both agree. The
host's CCHead needs mmcv with compiled operators.

    python tools/benchmark/models.py --out models
"""

from __future__ import annotations

import copy

import torch
from measure import Contestant, as_it_is, time_in_turns, verify
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from report import save_table
from run import parser, setup, size, wide_console

from mmseg_attn.apis.configs import find_config

CONFIGS = [
    'ccnet_r50-d8_4xb2-40k_cityscapes-512x1024',
    'isanet_r50-d8_4xb2-40k_cityscapes-512x1024',
]
NOTE = (
    'A training step without the optimizer: losses of decode and auxiliary '
    'head and all gradients, random labels. Time and peak memory of the host '
    'are multiples of ours: above 1 the host is slower or larger.'
)


class Losses(torch.nn.Module):
    """The sum of a segmentor's losses for pictures."""

    def __init__(self, model, label):
        super().__init__()
        self.model = model
        self.samples = [
            SegDataSample(gt_sem_seg=PixelData(data=x)) for x in label
        ]

    def forward(self, pictures):
        losses = self.model.loss(pictures, self.samples)
        return sum(v for k, v in losses.items() if 'loss' in k)


def build(model, kind):
    """A segmentor without dropout, which would differ between the two."""
    model = copy.deepcopy(model)
    model.decode_head.type = kind
    model.decode_head.dropout_ratio = 0
    model.auxiliary_head.dropout_ratio = 0
    model.pretrained = None
    model.data_preprocessor.pop('size', None)
    return revert_sync_batchnorm(MODELS.build(model)).train()


def contestants(config, batch, height, width, device):
    """Ours and the host's model of a config."""
    cfg = Config.fromfile(find_config(config))
    init_default_scope('mmseg')
    torch.manual_seed(0)
    kind = cfg.model.decode_head.type
    ours = build(cfg.model, kind)
    host = build(cfg.model, kind.removeprefix('mmseg_attn.'))
    host.load_state_dict(ours.state_dict())
    pictures = torch.randn(batch, 3, height, width, device=device)
    classes = cfg.model.decode_head.num_classes
    shape = batch, 1, height, width
    label = torch.randint(0, classes, shape, device=device)
    return [
        Contestant(
            name,
            Losses(model.to(device), label),
            [pictures],
            as_it_is,
            has_relu=True,
        )
        for name, model in (('ours', ours), ('host', host))
    ]


def parse_args(arguments=None):
    result = parser(__doc__)
    result.add_argument('--configs', nargs='+', default=CONFIGS)
    result.add_argument('--size', type=size, default='2x512x512')
    result.add_argument(
        '--budget', type=float, default=240, help='seconds of timing a config'
    )
    return result.parse_args(arguments)


def main(arguments=None):
    args = parse_args(arguments)
    console = wide_console()
    _, _, info = setup(args)
    del info['channels']
    shape = map(int, args.size.split('x'))
    batch, height, width = shape
    header = ['model', 'size', 'ours', 'host forward', 'host step']
    header += ['our peak', "host's peak"]
    body, rows = [], {}
    for config in args.configs:
        pair = contestants(config, batch, height, width, args.device)
        verify(pair[1], pair[0].results(), 1e-2)
        memory = {c.name: c.memory()[0] for c in pair}
        times = time_in_turns(pair, args.repeat, args.budget)
        rows[config] = dict(seconds=times, peak_bytes=memory)

        def median(name, kind, times=times):
            return times[name][kind]['median']

        body.append(
            [
                config,
                args.size,
                f'{median("ours", "total"):.2f} s',
                *(
                    f'{median("host", k) / median("ours", k):.2f} x'
                    for k in ('forward', 'total')
                ),
                f'{memory["ours"] / 2**20:.0f} MiB',
                f'{memory["host"] / memory["ours"]:.2f} x',
            ]
        )
    data = dict(machine=info, models=rows)
    save_table(console, header, body, NOTE, data, args.out, 'models')


if __name__ == '__main__':
    main()
