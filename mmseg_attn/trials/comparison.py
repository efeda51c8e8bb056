# Copyright (c) mmseg_attn contributors.
"""Train all methods under one budget."""

import fcntl
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from mmengine.config import Config
from rich.console import Console

from .. import __version__
from ..configs import list_configs
from ..errors import UserError
from ..files import whole
from ..metafiles import method_titles
from ..progress import make_progress
from . import trial
from .columns import metric_columns
from .differences import draw_differences
from .full import METHODS
from .plots import draw_plots
from .report import TOTAL, Report, Row
from .settings import difference_of, fingerprint

# By this a folder is known as a comparison's own.
LOCK = 'comparison.lock'

# What is no method of its own, or one in two variants; others are called as
# their metafiles say.
NAMES = {
    'fcn': 'FCN',
    'ccnet-r1': 'CCNet, 1 loop',
    'ccnet-r2': 'CCNet, 2 loops',
    'ccnet-ccl-r2': 'CCNet, 2 loops, CCL',
}


def title_of(method: str) -> str:
    """What a method is called in tables.

    Args:
        method: Beginning of its config's name.
    """
    return NAMES.get(method) or method_titles().get(method, method)


def methods(pattern: str) -> list[str]:
    """Find the methods that have a config.

    Args:
        pattern: Name of the configs, with ``{}`` for the method.

    Returns:
        Beginnings of the configs' names, the baseline first.
    """
    names = [path.name for path in list_configs()]
    end = pattern.format('')
    found = {name.removesuffix(end) for name in names if name.endswith(end)}
    order = ['fcn', *method_titles()]

    def place(name):
        method = name.partition('-')[0]
        found = order.index(method) if method in order else len(order)
        return found, name

    return sorted(found, key=place)


@dataclass(frozen=True)
class _Run:
    """A method with a seed.

    Attributes:
        method: Beginning of its config's name.
        seed: Seed of the training.
        stem: Folder of the training; with suffixes its config, its log and its
            result.
        cfg: As it is run.
        settings: All that the result depends on, as JSON has it.
    """

    method: str
    seed: int
    stem: Path
    cfg: Config
    settings: dict

    @property
    def name(self) -> str:
        return f'{title_of(self.method)}, seed {self.seed}'

    @property
    def file(self) -> Path:
        return self.stem.with_suffix('.json')

    def read(self, console: Console) -> trial.Result | None:
        """The result, if the run is finished.

        Raises:
            UserError: It was made with other settings.
        """
        try:
            content = json.loads(self.file.read_text(encoding='utf-8'))
            earlier = content.pop('settings')
            result = trial.Result(**content)
            float(result.metrics['mIoU'])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError):
            text = f'{self.file} is broken: the run is done again.'
            console.print(text, soft_wrap=True)
            return None
        if earlier != self.settings:
            raise UserError(
                f'{self.name}, was run with other settings: '
                f'{difference_of(earlier, self.settings)}. Give the earlier '
                'settings or another --work-dir, or remove '
                f'{self.file} to have it done again.'
            )
        return result

    def write(self, result: trial.Result) -> None:
        """Keep the result together with the settings."""
        content = asdict(result) | {'settings': self.settings}
        with whole(self.file) as path:
            path.write_text(json.dumps(content, indent=1) + '\n')


def run_comparison(
    setting: trial.Setting,
    work: Path,
    *,
    chosen: Sequence[str] | None = None,
    seeds: int = 3,
    jobs: int = 1,
) -> str:
    """Train and test each method with each seed, and report.

    Trainings that are done already are not repeated.

    Args:
        setting: What the trials run on.
        work: Folder for all output.
        chosen: Methods as of :func:`methods`, of a full comparison as of
            :data:`~mmseg_attn.trials.full.METHODS`, the baseline first; by
            default all.
        seeds: Trainings of each method.
        jobs: Trainings at a time, which share the cores.

    Returns:
        The method of the highest mean mIoU.

    Raises:
        UserError: Values that do not fit, a folder made with others, or a
            training that failed.
    """
    pattern = setting.pattern
    known = methods(pattern) if pattern else list(METHODS)
    chosen = _check(chosen, known, seeds=seeds, jobs=jobs)
    threads = max(1, torch.get_num_threads() // jobs)
    environment = trial.environment_of(setting.device, threads)
    budget = dict(
        device=_device_name(setting.device),
        jobs=jobs,
        threads=threads,
        torch=torch.__version__,
        mmseg_attn=__version__,
    )
    setting.check_work_dir(work)
    console = Console(stderr=True, highlight=False)
    with _own(work) as lock:
        with whole(work / 'data') as folder:
            data = trial.prepare_data(folder, setting, seed=0)
            columns = metric_columns(data)
            runs = _plan(
                chosen,
                data,
                work,
                seeds=seeds,
                iters=setting.iters,
                budget=budget,
            )
            # Before the data is replaced, in case it is not the same.
            results = [run.read(console) for run in runs]
        data = replace(data, folder=work / 'data')
        for note in data.notes:
            console.print(note)
        missing = [
            run
            for run, result in zip(runs, results, strict=True)
            if not result
        ]
        console.print(
            f'{len(chosen)} methods, {seeds} seed{"s" * (seeds > 1)}: '
            f'{len(runs)} trainings, of which {len(runs) - len(missing)} are '
            'done.'
        )
        failures = _run_all(missing, environment, jobs, lock)
        rows = {m: Row(m, title_of(m), {}) for m in chosen}
        for run in runs:
            if result := run.read(console):
                rows[run.method].results[run.seed] = result
        rows = [row for row in rows.values() if row.results]
        if rows:
            cfg = runs[0].cfg
            budget |= dict(
                iterations=cfg.train_cfg.max_iters,
                batch_size=cfg.train_dataloader.batch_size,
                seeds=seeds,
            )
            report = Report(data, columns, rows, budget)
            report.write(work)
            draw_plots(report, work)
            models = _models(rows, work)
            if len(models) > 1:
                sheet = work / 'differences.png'
                draw_differences(sheet, data, models, setting.device)
            report.print(Console(width=None if sys.stdout.isatty() else 120))
            print(f'Tables, plots, sheet and trainings: {work}')
    if failures:
        raise UserError(
            f'{len(failures)} of {len(runs)} trainings failed; the same '
            f'command does them again. {" ".join(map(str, failures))}'
        )
    return max(rows, key=lambda row: row.mean(TOTAL)).method


def _models(rows: list[Row], work: Path) -> dict[str, tuple[Path, Path]]:
    """Config and checkpoint of a training of each method that has them."""
    models = {}
    for row in rows:
        seed = min(row.results)
        stem = work / f'{row.method}_seed-{seed}'
        score = row.results[seed].metrics[TOTAL]
        for checkpoint in list(stem.glob('iter_*.pth'))[:1]:
            title = f'{row.title}\nmIoU {score:.1f}'
            models[title] = stem.with_suffix('.py'), checkpoint
    return models


def _check(
    chosen: Sequence[str] | None, known: list[str], **counts: int
) -> list[str]:
    """Methods to run, the baseline first."""
    chosen = list(dict.fromkeys(chosen or known))
    unknown = [m for m in chosen if m not in known]
    if unknown:
        raise UserError(
            f'unknown method {unknown[0]}; there are {", ".join(known)}.'
        )
    for name, count in counts.items():
        if count < 1:
            raise UserError(f'got --{name} {count}, expected at least 1.')
    return chosen


def _device_name(device: str | None) -> str:
    if device == 'cpu' or not torch.cuda.is_available():
        return 'cpu'
    number = (device or '').partition(':')[2]
    return torch.cuda.get_device_name(int(number or 0))


@contextmanager
def _own(work: Path) -> Iterator[int]:
    """Have the folder for this comparison alone while it works.

    The processes of the trainings inherit the lock: after a kill it is free
    when the last of them has ended.
    """
    lock = work / LOCK
    try:
        if work.exists() and any(work.iterdir()) and not lock.exists():
            raise UserError(
                f'{work} is not empty and holds no comparison; name another '
                '--work-dir.'
            )
        work.mkdir(parents=True, exist_ok=True)
        file = open(lock, 'a')  # noqa: SIM115
    except OSError as error:
        raise UserError(f'cannot write to the work folder: {error}') from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f'a comparison works in {work}, or what is left of a killed '
                'one; wait for it, or name another --work-dir.'
            ) from error
        yield file.fileno()


def _plan(
    chosen: list[str],
    data: trial.Data,
    work: Path,
    *,
    seeds: int,
    iters: int | None,
    budget: dict,
) -> list[_Run]:
    """All trainings: each method once, then each again.

    The data may still be at another place than where it will be.
    """
    found = fingerprint(data.folder)
    runs = []
    for seed in range(seeds):
        for method in chosen:
            stem = work / f'{method}_seed-{seed}'
            cfg = trial.trial_config(method, data, stem, seed, iters)
            settings = dict(data=found, **budget, config=cfg.to_dict())
            # A place says nothing about the result.
            del settings['config']['work_dir']
            for name in ('train_dataloader', 'test_dataloader'):
                del settings['config'][name]['dataset']['data_root']
                cfg[name].dataset.data_root = str(work / 'data')
            settings = json.loads(json.dumps(settings))
            runs.append(_Run(method, seed, stem, cfg, settings))
    return runs


def _run_all(
    runs: list[_Run], environment: dict, jobs: int, lock: int
) -> list[UserError]:
    """Run some at a time, keep each result, and return the failures."""
    if not runs:
        return []
    failures, processes = [], []
    stopped = False

    def started(process):
        processes.append(process)
        if stopped:
            process.kill()

    def work(run):
        # What an interrupted training left: its result was not written.
        shutil.rmtree(run.stem, ignore_errors=True)
        config = run.stem.with_suffix('.py')
        run.cfg.dump(config)
        result = trial.run_trial(
            run.name, config, environment, progress, started, [lock]
        )
        run.write(result)
        return f'mIoU {result.metrics["mIoU"]:.1f}, {result.seconds:.0f} s'

    with make_progress() as progress, ThreadPoolExecutor(jobs) as executor:
        total = progress.add_task('all trainings', total=len(runs))
        # In here from the first one: leaving the executor waits for them all.
        try:
            futures = {executor.submit(work, run): run for run in runs}
            for number, future in enumerate(as_completed(futures), start=1):
                try:
                    text = f'{futures[future].name}: {future.result()}'
                except UserError as error:
                    failures.append(error)
                    text = str(error)
                for task in progress.tasks:  # leave room for those that run
                    if task.id != total and task.finished:
                        progress.update(task.id, visible=False)
                progress.update(total, completed=number)
                progress.console.print(
                    f'{number} of {len(runs)}: {text}', soft_wrap=True
                )
        finally:
            stopped = True
            executor.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()
    return failures
