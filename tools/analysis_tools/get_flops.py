# Copyright (c) mmseg_attn contributors.
"""Count the parameters and operations of a segmentor."""

import argparse
import sys

from mmengine.config import Config, DictAction
from rich.console import Console
from rich.table import Table
from torch import nn

from mmseg_attn.configs import load_config
from mmseg_attn.errors import UserError, run_command
from mmseg_attn.progress import quiet_hosts, quiet_imports

with quiet_imports():
    from mmseg_attn.apis.complexity import segmentor_flops
    from mmseg_attn.apis.loading import load_model
    from mmseg_attn.apis.tasks import CLIPS, SEGMENTOR, check_task

NOTE = """\
GFLOPs are 1e9 operations in matrix products and convolutions alone, a
multiply-add being 2; norms, softmax and resizing are not counted. Of the
whole network on one picture up to its logits, without heads that only
training uses, attention as it is computed here."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=NOTE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config', help='config file, or name of a packaged config'
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='of the picture, in pixels (default: the training crop)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change entries of the config, e.g. model.backbone.depth=18',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config)
    check_task(cfg, SEGMENTOR, CLIPS)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    with quiet_hosts():
        model = load_model(cfg, None, device='cpu')
    height, width = args.shape or training_crop(cfg)
    try:
        flops = segmentor_flops(model, height, width)
    except RuntimeError as error:
        raise UserError(
            f'the model does not run on a picture of {height} x {width}: '
            f'{error}'
        ) from error
    show(
        f'{args.config}, a picture of {height} x {width}',
        {
            part: (parameters(getattr(model, part)), count)
            for part, count in flops.items()
        }
        | {'all': (parameters(model), sum(flops.values()))},
    )


def training_crop(cfg: Config) -> tuple[int, int]:
    size = (cfg.model.get('data_preprocessor') or {}).get('size')
    size = size or cfg.get('crop_size')
    if not size:
        raise UserError(
            'the config does not say how large training crops are '
            '(model.data_preprocessor.size, crop_size): give --shape HEIGHT '
            'WIDTH.'
        )
    return size


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def show(title: str, rows: dict[str, tuple[int, int]]) -> None:
    table = Table()
    table.add_column('part')
    table.add_column('parameters', justify='right')
    table.add_column('GFLOPs', justify='right')
    for part, (size, count) in rows.items():
        if part == 'all':
            table.add_section()
        table.add_row(part, f'{size:,}', f'{count / 1e9:,.3f}')
    console = Console(highlight=False, soft_wrap=True)
    console.print(title, markup=False)
    console.print(table)
    console.print(NOTE)


if __name__ == '__main__':
    sys.exit(run_command(main))
