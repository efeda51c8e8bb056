# Copyright (c) mmseg_attn contributors.
"""Plots of a benchmark."""

from __future__ import annotations

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from report import about, pixels

from mmseg_attn.files import whole


def draw(rows, info, out):
    """A plot of each case, and an overview of ours, in the folder ``out``."""
    title = about(info)
    timed = [r for r in rows if 'note' not in r]
    for case in dict.fromkeys(r['case'] for r in timed):
        chosen = [r for r in timed if r['case'] == case]
        plot(chosen, 'name', f'{case}: {title}', out / f'{case}.png')
    chosen = [r for r in timed if r['name'] == 'ours']
    plot(chosen, 'case', f'ours: {title}', out / 'overview.png')


def plot(rows, label, title, path):
    """Time and extra memory against pixels, a line per ``label``."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.8), layout='constrained'
    )
    styles = ['o-', 's--', '^:']
    for index, name in enumerate(dict.fromkeys(r[label] for r in rows)):
        points = sorted(
            (
                pixels(r['size']),
                1e3 * r['total']['median'],
                r['extra'] / 2**20,
            )
            for r in rows
            if r[label] == name
        )
        x, milliseconds, mebibytes = zip(*points, strict=True)
        style = styles[index // 5 % len(styles)]
        given = dict(label=name, color=f'C{index % 10}', markersize=4)
        left.loglog(x, milliseconds, style, **given)
        right.loglog(x, mebibytes, style, **given)
    left.set_ylabel('forward + backward, ms')
    right.set_ylabel('extra memory, MiB')
    for ax in (left, right):
        ax.set_xlabel('pixels in the batch')
        ax.grid(True, which='both', alpha=0.25)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside lower center', ncols=4, fontsize=9
    )
    figure.suptitle(title, fontsize=9)
    with whole(path) as partial:
        figure.savefig(partial, dpi=110)
    plt.close(figure)
