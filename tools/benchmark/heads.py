# Copyright (c) mmseg_attn contributors.
"""Export a small segmentor with each head; compare its files with PyTorch.

Each is on a small ResNet-18 with random weights, is exported to ONNX,
PyTorch's own format and OpenVINO, and compared at three sizes that it was not
traced at.

    python tools/benchmark/heads.py --out exported
    python tools/benchmark/heads.py --heads CCHead EAHead
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from deploy import FORMATS, random_weights
from machine import prepare
from mmengine.config import Config
from options import parser
from report import save_table

from mmseg_attn.errors import run_command
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.export import export

CLASSES = 5
# The last stage of the small backbone below, to few channels. Attention
# whose gain starts at 0 starts at 0.7 here, to be seen.
ONE = dict(
    in_channels=64,
    in_index=3,
    channels=16,
    num_classes=CLASSES,
    norm_cfg=dict(type='BN'),
    align_corners=False,
)
STAGES = dict(
    in_channels=[8, 16, 32, 64], num_classes=CLASSES, align_corners=False
)
HEADS = {
    'CAAHead': dict(
        ONE, attention_channels=16, attention=dict(guided_channels=4)
    ),
    'CCHead': dict(ONE, attention=dict(gamma_init=0.7)),
    'CE2PHead': dict(
        {**ONE, **STAGES, 'in_index': [0, 1, 2, 3]},
        **dict(decoder_channels=16, skip_channels=8),
        attention=dict(gamma_init=0.7),
    ),
    'EAHead': dict(ONE, attention=dict(num_heads=2)),
    'ISAHead': dict(ONE, isa_channels=8, down_factor=(4, 2)),
    'LAHead': dict(ONE, attention=dict(gamma_init=0.7)),
    'MANetHead': dict(
        STAGES,
        attention=dict(
            type='mmseg_attn.LinearAttention',
            feature_map='softplus',
            gamma_init=0.7,
        ),
    ),
    'MAResUNetHead': dict(
        STAGES,
        attention=dict(type='mmseg_attn.LinearAttention', gamma_init=0.7),
    ),
    'SqueezeAttentionHead': {**ONE, **STAGES, 'in_index': [0, 1, 2, 3]},
}
VARIANTS = {
    'ISAHead of 2019': dict(
        HEADS['ISAHead'], type='ISAHead', attention=dict(output_norm=False)
    ),
    'ISAHead of two partitions': dict(
        HEADS['ISAHead'], type='ISAHead', down_factor=[(4, 2), (3, 3)]
    ),
    'ISAHead, masked': dict(
        HEADS['ISAHead'], type='ISAHead', attention=dict(padding='mask')
    ),
    'SqueezeAttentionHead, both outputs': dict(
        HEADS['SqueezeAttentionHead'],
        type='SqueezeAttentionHead',
        test_output='mask+dense',
    ),
}
ALL = {name: {'type': name, **options} for name, options in HEADS.items()}
ALL |= VARIANTS
# Those that want stages of strides 4, 8, 16, 32; others are at stride 8.
PYRAMIDS = ('MANetHead', 'MAResUNetHead')
# Traced at this size, which is none of those compared.
SIZE = 64, 96
HEADER = ['head', *FORMATS, 'pixels of another class']
NOTE = (
    "The largest difference of a logit from PyTorch's, over the largest logit "
    'or 1, and the largest share of pixels of another class in any of the '
    f'three files, at {{sizes}} pixels; traced at {SIZE[0]} x {SIZE[1]}. '
    'Small segmentors with random weights.'
)


def segmentor(name, **options):
    """Config of a segmentor with a small ResNet-18 at stride 8.

    Args:
        name: Of the head, with its variant, as in :data:`ALL`.
        options: Of the head.
    """
    head = {**ALL[name], **options}
    pyramid = name in PYRAMIDS
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=1),
        backbone=dict(
            type='ResNetV1c',
            depth=18,
            stem_channels=8,
            base_channels=8,
            strides=(1, 2, 2, 2) if pyramid else (1, 2, 1, 1),
            dilations=(1, 1, 1, 1) if pyramid else (1, 1, 2, 4),
            norm_cfg=dict(type='BN'),
            contract_dilation=True,
        ),
        decode_head={**head, 'type': f'mmseg_attn.{head["type"]}'},
        test_cfg=dict(mode='whole'),
    )


def compared(name):
    """Differences of the files of a head, format -> size -> what differs."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    config = Config(
        dict(
            default_scope='mmseg',
            crop_size=SIZE,
            model=segmentor(name),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = random_weights(config, folder)
        for title, ending in FORMATS.items():
            path = Path(folder, f'model{ending}')
            exported = export(config, checkpoint, path)
            found[title] = {
                ' x '.join(map(str, item.size)): dict(
                    logits=item.values, pixels=item.pixels
                )
                for item in exported.differences
            }
    return found


def line(name, found):
    """A row of the table."""
    sizes = found.values()
    far, pixels = (
        [max(item[kind] for item in each.values()) for each in sizes]
        for kind in ('logits', 'pixels')
    )
    return [name, *(f'{value:.1e}' for value in far), f'{max(pixels):.4%}']


def main(arguments=None):
    options = parser(__doc__)
    options.add_argument('--heads', nargs='+', choices=ALL, default=list(ALL))
    args = options.parse_args(arguments)
    info, rows = prepare(args), {}
    for name in args.heads:
        print(name, file=sys.stderr, flush=True)
        rows[name] = compared(name)
    sizes = ', '.join(next(iter(rows[name].values())))
    body = [line(name, found) for name, found in rows.items()]
    data = dict(machine=info, heads=rows)
    note = NOTE.format(sizes=sizes)
    save_table(HEADER, body, note, data, args.out, 'heads')


if __name__ == '__main__':
    run_command(main)
