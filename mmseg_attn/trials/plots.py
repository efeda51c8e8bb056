# Copyright (c) mmseg_attn contributors.
"""The results of a comparison as plots."""

import itertools
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..files import whole
from .report import COSTS, TOTAL, Report, Row

GREY = '#6b6b6b'
# Of Okabe and Ito, and of Tol: told apart by colour-blind readers too.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
COLOURS += ('#882255', '#999933')
MARKERS = 'osD^vPh<'
STYLE = {
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.titlesize': 10,
    'axes.axisbelow': True,
}


def draw_plots(report: Report, folder: Path) -> None:
    """Draw miou.png, miou_seconds.png and cost.png.

    Args:
        report: What to show.
        folder: To write to.
    """
    baseline, *others = report.rows
    looks = {baseline.method: (GREY, 'X')}
    for row, look in zip(
        others, itertools.cycle(zip(COLOURS, MARKERS, strict=True))
    ):
        looks[row.method] = look
    drawings = {
        'miou.png': draw_iou,
        'miou_seconds.png': _draw_tradeoff,
        'cost.png': _draw_costs,
    }
    with matplotlib.rc_context(STYLE):
        for name, drawing in drawings.items():
            figure = drawing(report, looks)
            with whole(folder / name) as path:
                figure.savefig(path)


def _figure(width: float, height: float) -> Figure:
    size = (width, height)
    return Figure(size, dpi=200, layout='constrained', facecolor='white')


def _name_rows(axis: Axes, rows: list[Row]) -> None:
    axis.set_yticks(range(len(rows)), [row.title for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)


def draw_iou(report: Report, looks: dict) -> Figure:
    """Draw the mean and each seed of all methods, a panel for each metric.

    Args:
        report: What to show.
        looks: Method -> its colour and its marker.

    Returns:
        The figure.
    """
    columns = report.columns
    rows, number = report.rows, len(columns)
    figure = _figure(1.6 + 2.3 * number, 1.1 + 0.32 * len(rows))
    panels = figure.subplots(1, number, sharey=True, squeeze=False)[0]
    floor_shown = False
    for axis, (key, title) in zip(panels, columns.items(), strict=True):
        for place, row in enumerate(rows):
            colour, _ = looks[row.method]
            values = row.values(key)
            if not values:
                continue
            spread = [place] * len(values)
            if report.several:
                axis.scatter(values, spread, 22, colour, alpha=0.45, lw=0)
                mean = row.mean(key)
                axis.plot(mean, place, '|', color=colour, ms=15, mew=2.2)
            else:
                axis.scatter(values, spread, 36, colour, lw=0)
        axis.margins(x=0.08)
        if rows[0].values(key):
            axis.axvline(rows[0].mean(key), color=GREY, lw=0.8, ls='--')
        low, high = axis.get_xlim()
        floor = report.data.floor.get(key)
        if floor is not None and low < floor < high:
            axis.axvline(floor, color='black', lw=0.8, ls=':')
            floor_shown = True
        axis.set_title('mIoU' if key == TOTAL else f'IoU, {title}')
        axis.set_xlabel('per cent')
        axis.grid(axis='x', lw=0.4, alpha=0.6)
        axis.tick_params(axis='y', length=0)
    _name_rows(panels[0], rows)
    words = f'Bar: mean over seeds. Dots: the seeds. Dashed: {rows[0].title}.'
    if not report.several:
        words = f'One seed, another may differ. Dashed: {rows[0].title}.'
    if floor_shown:
        words += f' Dotted: {report.data.floor_name}.'
    figure.supxlabel(words, fontsize=8, color=GREY)
    return figure


def _draw_tradeoff(report: Report, looks: dict) -> Figure:
    """mIoU against the time of a training."""
    figure = _figure(5.6, 3.4)
    axis = figure.subplots()
    for row in report.rows:
        colour, marker = looks[row.method]
        axis.errorbar(
            row.mean('seconds'),
            row.mean(TOTAL),
            xerr=row.std('seconds'),
            yerr=row.std(TOTAL),
            fmt=marker,
            color=colour,
            ms=7,
            elinewidth=1,
            label=row.title,
        )
    axis.set_xlabel(
        f'seconds of a training of {report.budget["iterations"]} iterations'
    )
    axis.set_ylabel('mIoU (per cent)' + ', one seed' * (not report.several))
    axis.margins(0.08)
    axis.grid(lw=0.4, alpha=0.6)
    figure.legend(loc='outside right center', frameon=False)
    return figure


def _draw_costs(report: Report, looks: dict) -> Figure:
    """Parameters, operations, time and memory as bars."""
    rows = report.rows
    figure = _figure(1.6 + 2.1 * len(COSTS), 0.8 + 0.32 * len(rows))
    panels = figure.subplots(1, len(COSTS), sharey=True)
    for axis, (key, (title, form)) in zip(panels, COSTS.items(), strict=True):
        bars = axis.barh(
            range(len(rows)),
            [row.mean(key) for row in rows],
            0.62,
            color=[looks[row.method][0] for row in rows],
        )
        labels = [form.format(row.mean(key)) for row in rows]
        axis.bar_label(bars, labels, padding=3, fontsize=8)
        axis.margins(x=0.3)
        axis.set_title(title)
        axis.set_xticks([])
        axis.tick_params(axis='y', length=0)
        axis.spines['bottom'].set_visible(False)
    _name_rows(panels[0], rows)
    return figure
