# Copyright (c) mmseg_attn contributors.
"""Results as a table, Markdown, JSON and plots."""

from __future__ import annotations

import json
import math

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from rich.table import Table

HEADER = [
    'case',
    'BxHxW',
    'contestant',
    'forward ms',
    'x ours',
    'forward+backward ms',
    'x ours',
    'roofline',
    'peak MiB',
    'extra MiB',
    'x ours',
]
NOTE = (
    'Median of rounds in turns, ± half the interquartile range. x ours: '
    'larger is worse than ours. Roofline: the least time for the '
    "operator's declared products and tensors at this machine's measured "
    'FLOP/s and bytes/s, as a share of the time of the forward; maps that '
    'stay in a cache can be above 100 %. Extra memory: beyond the output and '
    'the gradients.'
)


def replace_file(path, make):
    """Let ``make`` write a file, which then takes the place of ``path``."""
    temporary = path.with_name(f'.{path.name}')
    make(temporary)
    temporary.replace(path)


def write(path, text):
    """Write a text file whole."""
    replace_file(path, lambda temporary: temporary.write_text(text))


def pixels(size):
    return math.prod(map(int, size.split('x')))


def cells(row, ours):
    """Columns of a row: times in ms, memory in MiB, and ratios to ours."""
    names = [row['case'], row['size'], row['name']]
    if 'note' in row:
        return [*names, row['note'], *['-'] * (len(HEADER) - 4)]
    numbers = []
    for kind in ('forward', 'total'):
        value, base = row[kind]['median'], ours[kind]['median']
        numbers += [
            f'{1e3 * value:.2f} ±{5e2 * row[kind]["iqr"]:.2f}',
            f'{value / base:.2f}',
        ]
    share = row['roofline']
    return [
        *names,
        *numbers,
        '-' if share is None else f'{share:.0%}',
        f'{row["peak"] / 2**20:.1f}',
        f'{row["extra"] / 2**20:.1f}',
        f'{row["extra"] / ours["extra"]:.2f}' if ours['extra'] else '-',
    ]


def lines(rows):
    """Cells of all rows; ours stands before its peers."""
    result = []
    ours = None
    for row in rows:
        if row['name'] == 'ours':
            ours = row
        result.append(cells(row, ours))
    return result


def markdown(header, body):
    """A Markdown table."""
    table = [header, ['---'] * len(header), *body]
    return '\n'.join(f'| {" | ".join(line)} |' for line in table) + '\n'


def about(machine):
    """The machine in a line."""
    return ', '.join(f'{name} {value}' for name, value in machine.items())


def save_table(console, header, body, note, data, out, name):
    """Print a table; with ``out`` write it there, and the data as JSON.

    Args:
        console: Of rich.
        header: Names of the columns.
        body: Lines of cells.
        note: What the columns mean.
        data: Figures, among them ``machine``.
        out: Folder, or None.
        name: Of the files, without ending.
    """
    title = about(data['machine'])
    table = Table(*header, title=title)
    for line in body:
        table.add_row(*line)
    console.print(table)
    if out:
        write(
            out / f'{name}.md',
            f'{title}.\n\n{note}\n\n{markdown(header, body)}',
        )
        write(out / f'{name}.json', json.dumps(data, indent=1) + '\n')


def save(rows, info, out):
    """Write all files to the folder ``out``; none is ever half a file."""
    title = about(info)
    text = f'{title}.\n\n{NOTE}\n\n{markdown(HEADER, lines(rows))}'
    data = json.dumps(dict(machine=info, rows=rows), indent=1) + '\n'
    write(out / 'benchmark.json', data)
    write(out / 'benchmark.md', text)
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
    replace_file(path, lambda p: figure.savefig(p, dpi=110, format='png'))
    plt.close(figure)
