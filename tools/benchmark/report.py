# Copyright (c) mmseg_attn contributors.
"""Results as a table, Markdown and JSON."""

from __future__ import annotations

import json
import math

from clock import KINDS

from mmseg_attn.files import whole
from mmseg_attn.markdown import markdown_table

NAMES = ['case', 'BxHxW', 'contestant']
MEMORY = ['roofline', 'peak MiB', 'extra MiB', 'x ours']
NOTE = (
    'Median of rounds in turns, ± half the interquartile range. x ours: '
    'larger is worse than ours. Roofline: the least time for the '
    "operator's declared products and tensors at this machine's measured "
    'FLOP/s and bytes/s, as a share of the time of the forward (as a graph '
    'where there is one); maps that stay in a cache can be above 100 %. Extra '
    'memory: beyond the output and the gradients. On a GPU: by events, the L2 '
    'cache cold, each step as it is called from an idle GPU, and as a CUDA '
    'graph.'
)


def write(path, text):
    """Write a text file whole."""
    with whole(path) as partial:
        partial.write_text(text)


def pixels(size):
    return math.prod(map(int, size.split('x')))


def timed_kinds(rows):
    """Kinds of runs that were timed, in order."""
    return [kind for kind in KINDS if any(kind in row for row in rows)]


def header(rows):
    """Names of the columns of :func:`lines`."""
    times = [[f'{KINDS[kind]} ms', 'x ours'] for kind in timed_kinds(rows)]
    return [*NAMES, *sum(times, []), *MEMORY]


def lines(rows):
    """Cells of all rows; ours stands before its peers."""
    kinds = timed_kinds(rows)
    result = []
    ours = None
    for row in rows:
        if row['name'] == 'ours':
            ours = row
        result.append(cells(row, ours, kinds))
    return result


def cells(row, ours, kinds):
    """Columns of a row: times in ms, memory in MiB, and ratios to ours."""
    names = [row['case'], row['size'], row['name']]
    if 'note' in row:
        return [*names, row['note']]
    numbers = []
    for kind in kinds:
        numbers += _times(row.get(kind), ours.get(kind))
    share = row['roofline']
    return [
        *names,
        *numbers,
        '-' if share is None else f'{share:.0%}',
        f'{row["peak"] / 2**20:.1f}',
        f'{row["extra"] / 2**20:.1f}',
        f'{row["extra"] / ours["extra"]:.2f}' if ours['extra'] else '-',
    ]


def _times(summary, base):
    if summary is None:
        return '-', '-'
    median, half = 1e3 * summary['median'], 5e2 * summary['iqr']
    digits = 2 if median >= 1 else 4
    ratio = f'{summary["median"] / base["median"]:.2f}' if base else '-'
    return f'{median:.{digits}f} ±{half:.{digits}f}', ratio


def markdown(header, body):
    """A Markdown table; short lines are filled up."""
    full = [[*line, *['-'] * (len(header) - len(line))] for line in body]
    return markdown_table(header, full) + '\n'


def about(machine):
    """The machine in a line."""
    return ', '.join(f'{name} {value}' for name, value in machine.items())


def print_table(title, header, body):
    """Print columns; those of short lines, which end in a note, are free."""
    widths = [len(name) for name in header]
    for line in body:
        full = line if len(line) == len(header) else line[:-1]
        for i, cell in enumerate(full):
            widths[i] = max(widths[i], len(cell))
    print(title)
    for line in (header, *body):
        padded = (c.ljust(w) for c, w in zip(line, widths, strict=False))
        print('  '.join(padded).rstrip(), flush=True)


def save_table(header, body, note, data, out, name):
    """Print a table; with ``out`` write it there, and the data as JSON.

    Args:
        header: Names of the columns.
        body: Lines of cells.
        note: What the columns mean.
        data: Figures, among them ``machine``.
        out: Folder, or None.
        name: Of the files, without ending.
    """
    title = about(data['machine'])
    print_table(title, header, body)
    if out:
        write_table(title, header, body, note, data, out, name)


def write_table(title, header, body, note, data, out, name):
    """The files of :func:`save_table`; none is ever half a file."""
    text = f'{title}.\n\n{note}\n\n{markdown(header, body)}'
    write(out / f'{name}.md', text)
    write(out / f'{name}.json', json.dumps(data, indent=1) + '\n')


def save(rows, info, out):
    """Write the table of a benchmark to the folder ``out``."""
    data = dict(machine=info, rows=rows)
    title = about(info)
    body = lines(rows)
    write_table(title, header(rows), body, NOTE, data, out, 'benchmark')
