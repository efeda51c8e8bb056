# Copyright (c) mmseg_attn contributors.
"""Train and compare FCN and CCNet, and make a sheet of pictures."""

import json
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..errors import UserError
from ..files import whole
from ..progress import make_console, make_progress, quiet_hosts
from . import trial
from .columns import class_rows, metric_columns
from .report import class_table
from .sheet import draw_sheet

# What the table and the sheet call a model, and the start of its config.
MODELS = {'FCN': 'fcn', 'CCNet R=1': 'ccnet-r1', 'CCNet R=2': 'ccnet-r2'}


def run_demo(
    setting: trial.Setting, work: Path | None = None, seed: int = 0
) -> list[Path]:
    """Prepare the data, train and test three models, show the result.

    Args:
        setting: What the trials run on.
        work: Empty or new folder for all output; by default
            ``work_dirs/demo``, or ``demo-2``, ... if that is taken.
        seed: Seed of the data and of the trainings.

    Returns:
        Config and checkpoint of the last model, and the folder of the
        validation pictures.

    Raises:
        UserError: If the pictures cannot be used, the work folder cannot be
            written, or a training fails.
    """
    console = Console(stderr=True, highlight=False)
    environment = trial.environment_of(setting.device)
    work = _make_work_dir(setting, work)
    data = trial.prepare_data(work / 'data', setting, seed)
    for note in data.notes:
        console.print(note)
    results = {}
    with make_progress() as progress:
        for name, start in MODELS.items():
            cfg = trial.trial_config(
                start, data, work / start, seed, setting.iters
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
    columns = metric_columns(data)
    table = _table(columns, data, results)
    make_console(110).print(table)
    found = {name: r.metrics.get for name, r in results.items()}
    if rows := class_rows(data, found):
        make_console(110).print(class_table(rows))
    console.print('Drawing the sheet ...')
    models = {
        name: (work / f'{start}.py', _checkpoint(work / start))
        for name, start in MODELS.items()
    }
    with quiet_hosts(), redirect_stdout(StringIO()):
        scores = {n: r.metrics['mIoU'] for n, r in results.items()}
        draw_sheet(work / 'sheet.png', data, models, scores)
    print(f'Picture sheet: {work / "sheet.png"}')
    print(f'Table: {work / "results.json"}; models and logs: {work}')
    return [*models[name], data.folder / 'images/val']


def _make_work_dir(setting: trial.Setting, work: Path | None) -> Path:
    """Find a folder that holds nothing yet: no result is overwritten."""
    if work is None:
        work, number = Path('work_dirs/demo'), 1
        while work.exists() and any(work.iterdir()):
            number += 1
            work = Path(f'work_dirs/demo-{number}')
    setting.check_work_dir(work)
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
