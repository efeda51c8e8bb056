# Copyright (c) mmseg_attn contributors.
import argparse
import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..errors import UserError
from ..files import whole
from ..progress import make_progress, quiet_hosts

with quiet_hosts():
    from . import trial
    from .sheet import draw_sheet

# What the table and the sheet call a model, and the start of its config.
MODELS = {'FCN': 'fcn', 'CCNet R=1': 'ccnet-r1', 'CCNet R=2': 'ccnet-r2'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser.

    Args:
        parser (ArgumentParser): The parser.
    """
    trial.add_arguments(parser)
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='empty or new folder for all output; by default '
        'work_dirs/demo, or demo-2, ... if that is taken',
    )
    parser.add_argument('--seed', type=int, default=0)


def main(args: argparse.Namespace) -> None:
    """Run the command.

    Args:
        args (Namespace): The parsed arguments.

    Raises:
        SystemExit: With one readable line for what the user can put right.
    """
    try:
        run_demo(args)
    except (UserError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error


def run_demo(args: argparse.Namespace) -> None:
    """Prepare the data, train and test three models, show the result.

    Args:
        args (Namespace): The parsed arguments.

    Raises:
        UserError: If the pictures cannot be used, the work folder cannot be
            written, or a training fails.
    """
    trial.check_arguments(args)
    console = Console(stderr=True, highlight=False)
    environment = trial.environment_of(args.device)
    work = _make_work_dir(args)
    data = trial.prepare_data(work / 'data', args, args.seed)
    for note in data.notes:
        console.print(note)
    results = {}
    with make_progress() as progress:
        for name, start in MODELS.items():
            cfg = trial.trial_config(
                start, data, work / start, args.seed, args.iters
            )
            # Beside the folder, in which the runner writes what it made of it.
            config = work / f'{start}.py'
            cfg.dump(config)
            results[name] = trial.run_trial(
                name, config, environment, progress
            )
    with whole(work / 'results.json') as path:
        content = {name: asdict(result) for name, result in results.items()}
        path.write_text(json.dumps(content, indent=1) + '\n')
    columns = trial.metric_columns(data)
    table = _table(columns, data, results)
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    console.print('Drawing the sheet ...')
    models = {
        name: (work / f'{start}.py', _checkpoint(work / start))
        for name, start in MODELS.items()
    }
    with quiet_hosts(), redirect_stdout(StringIO()):
        scores = {n: r.metrics['mIoU'] for n, r in results.items()}
        draw_sheet(work / 'sheet.png', data.folder, models, scores)
    print(f'Picture sheet: {work / "sheet.png"}')
    print(f'Table: {work / "results.json"}; models and logs: {work}')


def _make_work_dir(args: argparse.Namespace) -> Path:
    """Find a folder that holds nothing yet: no result is overwritten."""
    work = args.work_dir
    if work is None:
        work, number = Path('work_dirs/demo'), 1
        while work.exists() and any(work.iterdir()):
            number += 1
            work = Path(f'work_dirs/demo-{number}')
    trial.check_work_dir(work, args)
    try:
        work.mkdir(parents=True, exist_ok=True)
        if any(work.iterdir()):
            raise UserError(
                f'{work} is not empty, and earlier results are not '
                'overwritten; name another --work-dir.'
            )
        (work / 'data').mkdir()
    except OSError as error:
        raise UserError(f'cannot write to the work folder: {error}') from error
    return work


def _checkpoint(work: Path) -> Path:
    (checkpoint,) = work.glob('iter_*.pth')
    return checkpoint


def _table(
    columns: dict[str, str],
    data: trial.Data,
    results: dict[str, trial.Result],
) -> Table:
    table = Table(title='On the validation pictures (IoU in per cent)')
    table.add_column('model')
    for title in columns.values():
        table.add_column(title, justify='right')
    for title in ('parameters', 'seconds', 'peak MB'):
        table.add_column(title, justify='right')

    def scores(metrics: dict[str, float]) -> list[str]:
        return [
            f'{metrics[key]:.1f}' if key in metrics else '' for key in columns
        ]

    table.add_row(
        data.floor_name, *scores(data.floor), style='dim', end_section=True
    )
    for name, result in results.items():
        table.add_row(
            name,
            *scores(result.metrics),
            f'{result.parameters:,}',
            f'{result.seconds:.0f}',
            f'{result.peak_memory_mb:,.0f}',
        )
    return table
