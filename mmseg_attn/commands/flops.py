# Copyright (c) mmseg_attn contributors.
"""``flops``: count the parameters and operations of a segmentor."""

import argparse

from ..configs import load_config, training_crop
from ..errors import UserError
from ..progress import make_console, quiet_imports
from . import options

NOTE = """\
GFLOPs are 1e9 operations in matrix products and convolutions alone, a
multiply-add being 2; norms, softmax and resizing are not counted. Of the
whole network on one picture up to its logits, without heads that only
training uses, attention as it is computed here."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = NOTE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_config(parser)
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='of the picture, in pixels (default: the training crop)',
    )
    options.add_cfg_options(parser)


def main(args: argparse.Namespace) -> None:
    """Print a table of the parts of the network.

    Raises:
        UserError: The model cannot be built or does not run on such a
            picture.
    """
    from rich.table import Table

    with quiet_imports():
        from ..apis import load_model
        from ..apis.complexity import segmentor_flops
        from ..apis.tasks import CLIPS, SEGMENTOR, check_task

    cfg = load_config(args.config, options.read_options(args.cfg_options))
    check_task(cfg, SEGMENTOR, CLIPS)
    model = load_model(cfg, None, device='cpu')
    shape = args.shape or training_crop(cfg)
    if not shape:
        raise UserError(
            'the config does not say how large training crops are '
            '(model.data_preprocessor.size, crop_size): give --shape HEIGHT '
            'WIDTH.'
        )
    height, width = shape
    try:
        flops = segmentor_flops(model, height, width)
    except RuntimeError as error:
        raise UserError(
            f'the model does not run on a picture of {height} x {width}: '
            f'{error}'
        ) from error
    parts = {part: getattr(model, part) for part in flops} | {'all': model}
    flops['all'] = sum(flops.values())
    table = Table()
    table.add_column('part')
    table.add_column('parameters', justify='right')
    table.add_column('GFLOPs', justify='right')
    for part, module in parts.items():
        if part == 'all':
            table.add_section()
        size = sum(parameter.numel() for parameter in module.parameters())
        table.add_row(part, f'{size:,}', f'{flops[part] / 1e9:,.3f}')
    console = make_console(80)
    title = f'{args.config}, a picture of {height} x {width}'
    console.print(title, soft_wrap=True)
    console.print(table)
    console.print(NOTE)
    options.print_next('train', args.config, *options.given_changes(args))
