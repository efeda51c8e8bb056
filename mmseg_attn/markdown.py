# Copyright (c) mmseg_attn contributors.
"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    align_right: bool = False,
) -> str:
    """Write a table.

    Args:
        header: Titles of the columns.
        rows: Cells of each row, as many as there are titles.
        align_right: Whether all columns but the first are aligned to the
            right, as numbers are.

    Returns:
        The lines of the table, without a line end after the last one.

    Raises:
        ValueError: If a row has more or fewer cells than there are titles.
    """
    rest = '---:' if align_right else '---'
    rule = ['---', *[rest] * (len(header) - 1)]
    lines = [_line(header), f'| {" | ".join(rule)} |']
    for row in rows:
        if len(row) != len(header):
            raise ValueError(
                f'A row has {len(row)} cells, expected {len(header)}: {row}'
            )
        lines.append(_line(row))
    return '\n'.join(lines)


def _line(cells: Sequence[str]) -> str:
    # A bar inside a cell would end it.
    escaped = [cell.replace('|', r'\|') for cell in cells]
    return f'| {" | ".join(escaped)} |'
