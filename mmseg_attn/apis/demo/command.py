# Copyright (c) mmseg_attn contributors.
import argparse
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ...datasets.scenes import write_folder
from ...errors import UserError
from ..configs import find_config
from ..files import whole
from ..progress import make_progress, quiet_hosts

with quiet_hosts(), redirect_stdout(StringIO()):
    from mmengine.config import Config

    from .pictures import prepare_pictures
    from .sheet import draw_sheet

# What the table and the sheet call a model, and the start of its config.
MODELS = {'FCN': 'fcn', 'CCNet R=1': 'ccnet-r1', 'CCNet R=2': 'ccnet-r2'}
SCENES = '{}_r18-s4_1xb8-1k_demo-scenes-96x96.py'
PICTURES = '{}_r18-d8_1xb8-300_demo-pictures-128x128.py'
WORKER = 'mmseg_attn.apis.demo.worker'


@dataclass
class Result:
    """What came of one model.

    Attributes:
        metrics (dict[str, float]): In per cent, of the validation pictures.
        parameters (int): How many the model has.
        seconds (float): Time of the training.
        peak_memory_mb (float): Most memory the process held, on the GPU if
            it used one.
    """

    metrics: dict[str, float]
    parameters: int
    seconds: float
    peak_memory_mb: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser.

    Args:
        parser (ArgumentParser): The parser.
    """
    parser.add_argument(
        '--images', type=Path, help='your own pictures instead of scenes'
    )
    parser.add_argument(
        '--masks', type=Path, help='their masks, of the same names'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='empty or new folder for all output; by default '
        'work_dirs/demo, or demo-2, ... if that is taken',
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--device', help='cpu, cuda or cuda:N; by default the best there is'
    )
    parser.add_argument(
        '--iters', type=int, help='training iterations of each model'
    )


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
    if (args.images is None) != (args.masks is None):
        raise UserError('give both --images and --masks, or neither.')
    if args.iters is not None and args.iters < 1:
        raise UserError(f'got --iters {args.iters}, expected at least 1.')
    console = Console(stderr=True, highlight=False)
    environment = _environment(args.device)
    work = _make_work_dir(args)
    data = work / 'data'
    if args.images is None:
        write_folder(data, args.seed)
        pattern = SCENES
        # See make_scenes: no better without seeing flags and lamps.
        floor = {'mIoU one hop': 100 / 3, 'mIoU two hops': 100 / 3}
        floor_name = 'context unseen, at most'
        console.print('640 training and 80 validation scenes drawn.')
    else:
        notes, floor = prepare_pictures(
            args.images, args.masks, data, args.seed
        )
        pattern, floor_name = PICTURES, 'largest class everywhere'
        for note in notes:
            console.print(note)
    results = {}
    with make_progress() as progress:
        for name, start in MODELS.items():
            cfg = _config(pattern.format(start), data, work / start, args)
            results[name] = _run(name, cfg, environment, progress)
    groups = list(json.loads((data / 'dataset.json').read_text())['groups'])
    with whole(work / 'results.json') as path:
        content = {name: asdict(result) for name, result in results.items()}
        path.write_text(json.dumps(content, indent=1) + '\n')
    columns = {f'mIoU {group}': group for group in groups} | {'mIoU': 'all'}
    if args.images is not None:
        columns = {k: f'IoU {v}' for k, v in columns.items() if k != 'mIoU'}
        columns['mIoU'] = 'mIoU'
    table = _table(columns, floor_name, floor, results)
    Console(width=None if sys.stdout.isatty() else 110).print(table)
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


def _environment(device: str | None) -> dict[str, str]:
    """Let the processes see the chosen device alone."""
    environment = dict(os.environ)
    if device is None:
        return environment
    kind, _, number = device.partition(':')
    if kind == 'cpu' and not number:
        environment['CUDA_VISIBLE_DEVICES'] = ''
    elif kind == 'cuda' and (not number or number.isdigit()):
        import torch

        if int(number or 0) >= torch.cuda.device_count():
            raise UserError(
                f'--device {device}: there are {torch.cuda.device_count()} '
                'CUDA devices here; try --device cpu.'
            )
        environment['CUDA_VISIBLE_DEVICES'] = number or '0'
    else:
        raise UserError(
            f'got --device {device}, expected cpu, cuda or cuda:N.'
        )
    return environment


def _make_work_dir(args: argparse.Namespace) -> Path:
    """Find a folder that holds nothing yet: no result is overwritten."""
    work = args.work_dir
    if work is None:
        work, number = Path('work_dirs/demo'), 1
        while work.exists() and any(work.iterdir()):
            number += 1
            work = Path(f'work_dirs/demo-{number}')
    for source in (args.images, args.masks):
        if source and source.resolve() in (
            work.resolve(),
            *work.resolve().parents,
        ):
            raise UserError(
                f'{work} lies in {source}, where nothing shall be written; '
                'give --work-dir.'
            )
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


def _config(
    name: str, data: Path, work: Path, args: argparse.Namespace
) -> Path:
    """Write the config of one model as it is run."""
    cfg = Config.fromfile(find_config(name))
    classes = json.loads((data / 'dataset.json').read_text())['classes']
    cfg.model.decode_head.num_classes = len(classes)
    cfg.work_dir = str(work)
    cfg.randomness = dict(seed=args.seed)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].dataset.data_root = str(data)
    # Tested once, after the training.
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    if args.iters is not None:
        warm_up, decay = cfg.param_scheduler
        warm_up.end = decay.begin = min(warm_up.end, args.iters // 2)
        decay.end = cfg.train_cfg.max_iters = args.iters
        cfg.default_hooks.checkpoint.interval = args.iters
    # Beside the folder, in which the runner writes what it made of it.
    path = work.with_suffix('.py')
    cfg.dump(path)
    return path


def _run(
    name: str, config: Path, environment: dict[str, str], progress: Progress
) -> Result:
    """Train and test in a process of its own, whose peak memory is its own."""
    total = Config.fromfile(config).train_cfg.max_iters
    task = progress.add_task(f'{name}: starting', total=total)
    log = config.with_suffix('.log')
    read, write = os.pipe()
    with open(log, 'w', encoding='utf-8') as file:
        process = subprocess.Popen(
            [sys.executable, '-m', WORKER, config, str(write)],
            stdout=file,
            stderr=file,
            env=environment,
            pass_fds=(write,),
        )
    os.close(write)
    message = {}
    try:
        with os.fdopen(read) as messages:
            for line in messages:
                message = json.loads(line)
                if 'iteration' in message:
                    progress.update(
                        task,
                        completed=message['iteration'],
                        description=f'{name}: loss {message["loss"]:.3f}',
                    )
                elif 'tested' in message:
                    progress.update(task, description=f'{name}: testing')
        process.wait()
    finally:
        process.kill()
    if process.returncode or 'metrics' not in message:
        lines = log.read_text(encoding='utf-8').strip().splitlines()
        last = lines[-1].removeprefix('Error: ') if lines else 'no message'
        raise UserError(f'{name} failed: {last} (all of it in {log})')
    result = Result(**message)
    progress.update(
        task, description=f'{name}: mIoU {result.metrics["mIoU"]:.1f}'
    )
    return result


def _checkpoint(work: Path) -> Path:
    (checkpoint,) = work.glob('iter_*.pth')
    return checkpoint


def _table(
    columns: dict[str, str],
    floor_name: str,
    floor: dict[str, float],
    results: dict[str, Result],
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

    table.add_row(floor_name, *scores(floor), style='dim', end_section=True)
    for name, result in results.items():
        table.add_row(
            name,
            *scores(result.metrics),
            f'{result.parameters:,}',
            f'{result.seconds:.0f}',
            f'{result.peak_memory_mb:,.0f}',
        )
    return table
