# Copyright (c) mmseg_attn contributors.
"""The results of a comparison as tables."""

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..files import whole
from ..markdown import markdown_table
from .columns import class_rows
from .trial import Data, Result

TOTAL = 'mIoU'
# Of a run beside its metrics: attribute of a result, its title, its format.
COSTS = {
    'parameters': ('parameters', '{:,.0f}'),
    'gflops': ('GFLOPs', '{:.3f}'),
    'seconds': ('seconds', '{:.0f}'),
    'peak_memory_mb': ('peak MB', '{:,.0f}'),
}


@dataclass(frozen=True)
class Row:
    """A method with the results of its seeds.

    Attributes:
        method: Start of its configs' names.
        title: What to call it.
        results: By seed; at least one.
    """

    method: str
    title: str
    results: dict[int, Result]

    def values(self, key: str) -> list[float]:
        """A metric or a cost of all seeds that have it."""
        if key in COSTS:
            return [float(getattr(r, key)) for r in self.results.values()]
        found = (r.metrics.get(key) for r in self.results.values())
        return [value for value in found if value is not None]

    def mean(self, key: str) -> float | None:
        """Mean over seeds, None if no seed has it."""
        values = self.values(key)
        return statistics.fmean(values) if values else None

    def std(self, key: str) -> float | None:
        """Sample standard deviation over seeds."""
        values = self.values(key)
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Report:
    """A comparison with all that its tables say.

    Attributes:
        data: What it was made on.
        columns: Metric -> its title, mIoU the last one.
        rows: The baseline first.
        budget: What all runs have in common.
    """

    data: Data
    columns: dict[str, str]
    rows: list[Row]
    budget: dict

    @property
    def several(self) -> bool:
        """Whether a method has more than one seed."""
        return any(len(row.results) > 1 for row in self.rows)

    def gain(self, row: Row) -> float | None:
        """By how much its mean mIoU is above the baseline's."""
        if row is self.rows[0]:
            return None
        return row.mean(TOTAL) - self.rows[0].mean(TOTAL)

    def gain_error(self, row: Row) -> float | None:
        """Standard error of that, from the differences seed by seed.

        None of the baseline, and where fewer than two seeds have both.
        """
        ours, theirs = row.results, self.rows[0].results
        differences = [
            ours[seed].metrics[TOTAL] - theirs[seed].metrics[TOTAL]
            for seed in ours.keys() & theirs.keys()
        ]
        if row is self.rows[0] or len(differences) < 2:
            return None
        return statistics.stdev(differences) / math.sqrt(len(differences))

    def main_table(self) -> list[list[str]]:
        """Title row and a row for each method, after the floor's."""
        rest = [f'to {self.rows[0].title}']
        rest += [title for title, _ in COSTS.values()]
        floor = [_show(self.data.floor.get(k), '{:.1f}') for k in self.columns]
        table = [
            ['method', *self.columns.values(), *rest],
            [self.data.floor_name, *floor, *[''] * len(rest)],
        ]
        for row in self.rows:
            cells = [row.title]
            for key in self.columns:
                spread = _show(row.std(key), ' ± {:.1f}')
                cells.append(_show(row.mean(key), '{:.1f}') + spread)
            error = _show(self.gain_error(row), ' ± {:.1f}')
            cells.append(_show(self.gain(row), '{:+.1f}') + error)
            cells += [_show(row.mean(k), f) for k, (_, f) in COSTS.items()]
            table.append(cells)
        return table

    def seeds_table(self) -> list[list[str]]:
        """mIoU of each run; empty where the main table has it."""
        if not self.several:
            return []
        seeds = sorted({seed for row in self.rows for seed in row.results})
        table = [['mIoU', *(f'seed {seed}' for seed in seeds)]]
        for row in self.rows:
            runs = (row.results.get(seed) for seed in seeds)
            values = [run and run.metrics[TOTAL] for run in runs]
            table.append([row.title, *(_show(v, '{:.1f}') for v in values)])
        return table

    def classes_table(self) -> list[list[str]]:
        """IoU of each class, its mean over seeds, where no column has it."""
        means = {row.title: row.mean for row in self.rows}
        return class_rows(self.data, means)

    def notes(self) -> list[str]:
        """How the numbers came about."""
        budget = self.budget
        size = self.data.size
        several = budget['jobs'] > 1
        return [
            *self.data.notes,
            f'Each method {self.data.start()}: {budget["iterations"]} '
            f'iterations of {budget["batch_size"]} pictures of {size}, '
            f'{budget["seeds"]} seed{"s" * (budget["seeds"] > 1)}.',
            'IoU in per cent on the validation pictures'
            + (
                ': mean ± sample standard deviation over the seeds; to '
                f'{self.rows[0].title}: mean ± standard error of the '
                'differences, seed by seed.'
                if self.several
                else ', of one seed. By how much another seed differs is not '
                'known: smaller differences than that tell nothing '
                '(--seeds 3).'
            ),
            'GFLOPs: 2 for each multiply-add of convolutions and matrix '
            f'products, from one picture of {size} to the logits.',
            'Seconds: of the training; peak MB: of the process with all its '
            f'libraries; means over the seeds, on {budget["device"]} with '
            f'{budget["threads"]} thread{"s" * (budget["threads"] > 1)}'
            f'{" each" * several}, {budget["jobs"]} training'
            f'{"s" * several} at a time. PyTorch {budget["torch"]}, '
            f'mmseg_attn {budget["mmseg_attn"]}.',
        ]

    def write(self, folder: Path) -> None:
        """Write comparison.md and comparison.json."""
        lines = ['# Comparison', '']
        tables = self.main_table(), self.classes_table(), self.seeds_table()
        for header, *rows in filter(None, tables):
            lines += [markdown_table(header, rows, align_right=True), '']
        lines += [f'- {note}' for note in self.notes()]
        with whole(folder / 'comparison.md') as path:
            path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
        with whole(folder / 'comparison.json') as path:
            path.write_text(json.dumps(self._content(), indent=1) + '\n')

    def _content(self) -> dict:
        runs = [run for row in self.rows for run in row.results.values()]
        keys = dict.fromkeys(name for run in runs for name in run.metrics)
        keys = [*keys, *COSTS]

        def content(row: Row) -> dict:
            def of(function: Callable[[str], float | None]) -> dict:
                values = {key: function(key) for key in keys}
                return {k: v for k, v in values.items() if v is not None}

            runs = {seed: asdict(run) for seed, run in row.results.items()}
            return dict(
                title=row.title,
                mean=of(row.mean),
                std=of(row.std),
                gain=self.gain(row),
                gain_error=self.gain_error(row),
                runs=runs,
            )

        return dict(
            dataset=self.data.notes,
            budget=self.budget,
            floor={self.data.floor_name: self.data.floor},
            methods={row.method: content(row) for row in self.rows},
        )

    def print(self, console: Console) -> None:
        """Print the tables."""
        titles, floor, *rows = self.main_table()
        table = Table(title='On the validation pictures (IoU in per cent)')
        for number, title in enumerate(titles):
            table.add_column(title, justify='right' if number else 'left')
        table.add_row(*floor, style='dim', end_section=True)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        if rows := self.classes_table():
            console.print(class_table(rows))
        if rows := self.seeds_table():
            table = Table(*rows[0])
            for row in rows[1:]:
                table.add_row(*row)
            console.print(table)
        for note in self.notes():
            console.print(note, style='dim', highlight=False)


def class_table(rows: list[list[str]]) -> Table:
    """Make a table for a terminal.

    Args:
        rows: From :func:`~mmseg_attn.trials.columns.class_rows`.
    """
    (first, *models), *rest = rows
    table = Table(title='IoU of each class (per cent)')
    table.add_column(first, overflow='fold')
    for name in models:
        table.add_column(name, justify='right')
    for row in rest:
        table.add_row(*row)
    return table


def _show(value: float | None, form: str) -> str:
    return '' if value is None else form.format(value)
