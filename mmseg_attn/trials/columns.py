# Copyright (c) mmseg_attn contributors.
"""Which metrics of a dataset's classes are columns, and which rows."""

import json
from collections.abc import Callable, Mapping

from .trial import SCENES, Data

# Of classes beside their mean; more are a table of their own.
MOST_COLUMNS = 6


def metric_columns(data: Data) -> dict[str, str]:
    """Metrics worth a column, and their titles.

    Args:
        data: The dataset.

    Returns:
        Name of the metric -> title; 'mIoU' is the last one.
    """
    found = class_metrics(data)
    last = 'all' if data.pattern == SCENES else 'mean'
    return (found if len(found) <= MOST_COLUMNS else {}) | {'mIoU': last}


def class_metrics(data: Data) -> dict[str, str]:
    """Metrics of each class, of scenes of each group of classes.

    Args:
        data: The dataset.

    Returns:
        Name of the metric -> what it is of.
    """
    content = json.loads((data.folder / 'dataset.json').read_text())
    return {f'mIoU {group}': group for group in content['groups']}


def class_rows(
    data: Data, models: Mapping[str, Callable[[str], float | None]]
) -> list[list[str]]:
    """Make a table of the classes where they are too many for columns.

    Args:
        data: The dataset.
        models: Name of a model -> what gives a metric of it, in per cent.

    Returns:
        A title row and a row for each class; empty where they are columns.
    """
    found = class_metrics(data)
    if len(found) <= MOST_COLUMNS:
        return []
    return [['class', *models]] + [
        [
            title,
            *(
                '-' if (value := of(key)) is None else f'{value:.1f}'
                for of in models.values()
            ),
        ]
        for key, title in found.items()
    ]
