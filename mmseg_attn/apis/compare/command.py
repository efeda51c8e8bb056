# Copyright (c) mmseg_attn contributors.
import argparse
import json
import os
import shutil
import sys
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console
from rich.progress import Progress

from ...errors import UserError
from ..configs import packaged_configs
from ..files import whole
from ..progress import make_progress, quiet_hosts

with quiet_hosts(), redirect_stdout(StringIO()):
    from ..trials import trial
    from .report import Summary, print_table, write_report

# What a method is called in tables; others go by their configs' name.
NAMES = {
    'fcn': 'FCN',
    'ccnet-r1': 'CCNet, 1 loop',
    'ccnet-r2': 'CCNet, 2 loops',
    'caanet': 'CAANet',
    'sanet': 'SANet',
    'isanet': 'ISANet',
    'eanet': 'Efficient Attention',
    'lanet': 'Linear Attention',
}


def methods() -> list[str]:
    """Find the methods that have configs for both kinds of small data.

    Returns:
        list[str]: Beginnings of the configs' names, the baseline first.
    """
    stems = {path.name for path in packaged_configs()}
    start = trial.SCENES.format('')
    found = {
        name.removesuffix(start) for name in stems if name.endswith(start)
    }
    found = {n for n in found if trial.PICTURES.format(n) in stems}
    order = list(NAMES)
    return sorted(
        found,
        key=lambda n: (order.index(n) if n in order else len(order), n),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser.

    Args:
        parser (ArgumentParser): The parser.
    """
    trial.add_arguments(parser)
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/compare'),
        help='folder for all output; run the same command again to go on '
        'where it stopped',
    )
    parser.add_argument(
        '--methods',
        nargs='+',
        metavar='METHOD',
        help='by default all; the first one is the baseline',
    )
    parser.add_argument(
        '--seeds', type=int, default=3, help='trainings of each method'
    )
    parser.add_argument(
        '--jobs', type=int, default=1, help='trainings at a time'
    )


def main(args: argparse.Namespace) -> None:
    """Run the command.

    Args:
        args (Namespace): The parsed arguments.

    Raises:
        SystemExit: With one readable line for what the user can put right.
    """
    try:
        run_comparison(args)
    except (UserError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error


def run_comparison(args: argparse.Namespace) -> None:
    """Train and test each method with each seed, and report.

    Trainings that are done already are not repeated.

    Args:
        args (Namespace): The parsed arguments.

    Raises:
        UserError: Arguments that do not fit, a folder made with others, or a
            training that failed.
    """
    trial.check_arguments(args)
    chosen = _check(args)
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    environment = trial.environment_of(
        args.device, threads if args.jobs > 1 else None
    )
    work = args.work_dir
    trial.check_work_dir(work, args)
    console = Console(stderr=True, highlight=False)
    data = _prepare(work, args, console)
    runs = [(m, seed) for seed in range(args.seeds) for m in chosen]
    with make_progress() as progress:
        results = _run_all(runs, data, environment, progress, args)
    summaries = [
        Summary(
            NAMES.get(m, m), [results[m, seed] for seed in range(args.seeds)]
        )
        for m in chosen
    ]
    columns = trial.metric_columns(data)
    print_table(summaries, columns, data, None if sys.stdout.isatty() else 110)
    for path in write_report(work, summaries, columns, data, args.seeds):
        print(path)


def _check(args: argparse.Namespace) -> list[str]:
    """Methods to run, the baseline first."""
    known = methods()
    chosen = list(dict.fromkeys(args.methods or known))
    unknown = [m for m in chosen if m not in known]
    if unknown:
        raise UserError(
            f'unknown method {unknown[0]}; there are {", ".join(known)}.'
        )
    for name in ('seeds', 'jobs'):
        if getattr(args, name) < 1:
            raise UserError(
                f'got --{name} {getattr(args, name)}, expected at least 1.'
            )
    return chosen


def _prepare(
    work: Path, args: argparse.Namespace, console: Console
) -> trial.Data:
    """Make the data once; the note of what it is made from comes last."""
    folder, note = work / 'data', work / 'data.json'
    source = {
        name: path and str(path.resolve())
        for name, path in (('images', args.images), ('masks', args.masks))
    }
    if note.is_file():
        content = json.loads(note.read_text())
        if content.pop('source') != source:
            raise UserError(
                f'{work} holds a comparison on other pictures; name another '
                '--work-dir.'
            )
        return trial.Data(folder, **content)
    if work.exists() and any(p.name != 'data' for p in work.iterdir()):
        raise UserError(
            f'{work} is not empty and holds no comparison; name another '
            '--work-dir.'
        )
    shutil.rmtree(folder, ignore_errors=True)  # half of an earlier start
    folder.mkdir(parents=True)
    data = trial.prepare_data(folder, args, seed=0)
    for text in data.notes:
        console.print(text)
    content = asdict(data) | {'source': source}
    del content['folder']
    with whole(note) as path:
        path.write_text(json.dumps(content, indent=1) + '\n')
    return data


def _run_all(
    runs: list[tuple[str, int]],
    data: trial.Data,
    environment: dict,
    progress: Progress,
    args: argparse.Namespace,
) -> dict[tuple[str, int], trial.Result]:
    """Run what is not done yet, some at a time; a failure stops all."""
    done, waiting = {}, []
    for method, seed in runs:
        run = _make_run(method, seed, data, args)
        if run.result.is_file():
            content = json.loads(run.result.read_text())
            done[method, seed] = trial.Result(**content)
        else:
            waiting.append(run)
    total = progress.add_task('all trainings', total=len(runs))
    progress.update(total, completed=len(done))
    processes = []

    def work(run):
        done[run.method, run.seed] = _run_one(
            run, environment, progress, processes
        )
        progress.advance(total)

    executor = ThreadPoolExecutor(args.jobs)
    try:
        futures = [executor.submit(work, run) for run in waiting]
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        executor.shutdown()
    return done


def _make_run(
    method: str, seed: int, data: trial.Data, args: argparse.Namespace
) -> SimpleNamespace:
    """Files of one training, whose settings must be those of last time."""
    stem = args.work_dir / f'{method}_seed-{seed}'
    cfg = trial.trial_config(method, data, stem, seed, args.iters)
    config, result = stem.with_suffix('.py'), stem.with_suffix('.json')
    if result.is_file() and config.read_text() != cfg.pretty_text:
        raise UserError(
            f'{result} is of a training with other settings (see {config}); '
            'name another --work-dir.'
        )
    return SimpleNamespace(
        method=method, seed=seed, stem=stem, config=config, result=result,
        cfg=cfg,
    )  # fmt: skip


def _run_one(
    run: SimpleNamespace,
    environment: dict,
    progress: Progress,
    processes: list,
) -> trial.Result:
    name = f'{NAMES.get(run.method, run.method)}, seed {run.seed}'
    task = progress.add_task(
        f'{name}: starting', total=run.cfg.train_cfg.max_iters
    )
    # What an interrupted training left: its result was not written.
    shutil.rmtree(run.stem, ignore_errors=True)
    run.config.write_text(run.cfg.pretty_text)

    def show(message):
        if 'iteration' in message:
            progress.update(
                task,
                completed=message['iteration'],
                description=f'{name}: loss {message["loss"]:.3f}',
            )

    result = trial.run_trial(run.config, environment, show, processes.append)
    with whole(run.result) as path:
        path.write_text(json.dumps(asdict(result), indent=1) + '\n')
    progress.update(
        task, description=f'{name}: mIoU {result.metrics["mIoU"]:.1f}'
    )
    return result
