# Copyright (c) mmseg_attn contributors.
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ..files import whole
from ..trials.trial import Data, Result

GREY, BLUE, RED = '#8a8f98', '#2563a8', '#c0392b'


@dataclass
class Summary:
    """The trainings of one method.

    Attributes:
        name (str): What it is called.
        results (list[Result]): One for each seed.
    """

    name: str
    results: list[Result]

    def metric(self, key: str) -> list[float]:
        """A metric of each training that has it, in per cent."""
        found = [r.metrics.get(key) for r in self.results]
        return [value for value in found if value is not None]

    def mean(self, attribute: str) -> float:
        """Mean of a figure over the trainings."""
        return mean(getattr(r, attribute) for r in self.results)


def _spread(values: list[float]) -> str:
    if not values:
        return '-'
    if len(values) == 1:
        return f'{values[0]:.1f}'
    return f'{mean(values):.1f} ± {stdev(values):.1f}'


def _rows(
    summaries: list[Summary], columns: dict[str, str], data: Data
) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table, as text."""
    head = ['method', *columns.values(), 'to the first', 'parameters']
    head += ['GFLOPs', 'seconds', 'peak MB']
    first = summaries[0].metric('mIoU')
    blank = [''] * 5
    floor = [
        f'{data.floor[k]:.1f}' if k in data.floor else '' for k in columns
    ]
    rows = [[data.floor_name, *floor, *blank]]
    for summary in summaries:
        gain = mean(summary.metric('mIoU')) - mean(first)
        rows.append(
            [
                summary.name,
                *(_spread(summary.metric(key)) for key in columns),
                '' if summary is summaries[0] else f'{gain:+.1f}',
                f'{summary.results[0].parameters:,}',
                f'{summary.results[0].gflops:.3f}',
                f'{summary.mean("seconds"):.0f}',
                f'{max(r.peak_memory_mb for r in summary.results):,.0f}',
            ]
        )
    return head, rows


def print_table(
    summaries: list[Summary],
    columns: dict[str, str],
    data: Data,
    width: int | None,
) -> None:
    """Print the comparison.

    Args:
        summaries (list[Summary]): The methods, the baseline first.
        columns (dict[str, str]): Metric -> title.
        data (Data): The dataset.
        width (int | None): Of the page; None is the terminal's.
    """
    head, rows = _rows(summaries, columns, data)
    table = Table(title='On the validation pictures (IoU in per cent)')
    for i, title in enumerate(head):
        table.add_column(title, justify='right' if i else 'left')
    for i, row in enumerate(rows):
        table.add_row(*row, style=None if i else 'dim', end_section=not i)
    Console(width=width).print(table)


def write_report(
    work: Path,
    summaries: list[Summary],
    columns: dict[str, str],
    data: Data,
    seeds: int,
) -> list[Path]:
    """Write the comparison as Markdown, JSON and plots.

    Args:
        work (Path): Folder to write to; files of these names are replaced.
        summaries (list[Summary]): The methods, the baseline first.
        columns (dict[str, str]): Metric -> title.
        data (Data): The dataset.
        seeds (int): Trainings of each method.

    Returns:
        list[Path]: The files.
    """
    head, rows = _rows(summaries, columns, data)
    lines = [
        '| ' + ' | '.join(head) + ' |',
        '| --- |' + ' ---: |' * (len(head) - 1),
        *('| ' + ' | '.join(row) + ' |' for row in rows),
    ]
    text = '\n'.join(lines) + (
        '\n\nIoU in per cent on the validation pictures: mean and standard '
        f'deviation of {seeds} trainings. Seconds: of a training; GFLOPs: of '
        'one training picture up to the logits, 2 x multiply-adds; peak MB: '
        'of the process.\n'
    )
    files = [work / f'comparison.{kind}' for kind in ('md', 'json', 'png')]
    content = {s.name: [asdict(r) for r in s.results] for s in summaries}
    with whole(files[0]) as path:
        path.write_text(text)
    with whole(files[1]) as path:
        path.write_text(json.dumps(content, indent=1) + '\n')
    with whole(files[2]) as path:
        _draw(summaries, columns, data).savefig(path, format='png', dpi=150)
    return files


def _draw(
    summaries: list[Summary], columns: dict[str, str], data: Data
) -> Figure:
    """Dots for each training and metric, and bars for what it takes."""
    names = [s.name for s in summaries]
    places = range(len(names))
    costs: dict[str, Callable[[Summary], float]] = {
        'GFLOPs of a picture': lambda s: s.results[0].gflops,
        'seconds of training': lambda s: s.mean('seconds'),
        'peak memory, MB': lambda s: max(r.peak_memory_mb for r in s.results),
    }
    count = len(columns) + len(costs)
    figure = Figure(
        figsize=(2.2 + 2.1 * count, 1.3 + 0.42 * len(names)),
        layout='constrained',
    )
    axes = figure.subplots(1, count, sharey=True)
    for axis, (key, title) in zip(axes, columns.items(), strict=False):
        whole_set = key == 'mIoU'
        axis.set_title(f'{title}: mIoU, %' if not whole_set else 'mIoU, %')
        baseline = summaries[0].metric(key)
        if baseline:
            axis.axvline(mean(baseline), color=GREY, lw=1, ls='--')
        if key in data.floor:
            axis.axvline(data.floor[key], color=RED, lw=1, ls=':')
        for place, summary in zip(places, summaries, strict=True):
            values = summary.metric(key)
            if not values:
                continue
            color = BLUE if place else GREY
            axis.plot(values, [place] * len(values), 'o', ms=4, color=color,
                      alpha=0.5)  # fmt: skip
            axis.plot(mean(values), place, '|', ms=16, mew=2.5, color=color)
        axis.margins(x=0.12)
    for axis, (title, value) in zip(
        axes[len(columns) :], costs.items(), strict=True
    ):
        axis.set_title(title)
        values = [value(s) for s in summaries]
        colors = [BLUE if place else GREY for place in places]
        axis.barh(places, values, height=0.6, color=colors, alpha=0.8)
        for place, number in zip(places, values, strict=True):
            text = f'{number:.3g}' if number < 100 else f'{number:,.0f}'
            axis.text(number, place, f' {text}', va='center', fontsize=8)
        axis.set_xlim(0, 1.3 * max(values))
    for axis in axes:
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=8)
        axis.spines[['top', 'right']].set_visible(False)
        axis.grid(axis='x', lw=0.4, alpha=0.6)
        axis.set_axisbelow(True)
    axes[0].set_yticks(places, names, fontsize=9)
    axes[0].invert_yaxis()
    return figure
