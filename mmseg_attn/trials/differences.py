# Copyright (c) mmseg_attn contributors.
"""The pictures on which methods differ most, as one sheet."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..apis.loading import load_model
from ..apis.predictors import Segmenter
from ..files import whole
from ..pictures import read_picture
from ..progress import make_progress, quiet_hosts
from ..visualization.overlay import paint
from .sheet import make_grid
from .trial import Data

ROWS = 5
# Longest side on the sheet, in pixels. Predictions are compared in this size.
LONGEST = 320


def draw_differences(
    path: Path,
    data: Data,
    models: Mapping[str, tuple[Path, Path]],
    device: str | None = None,
) -> None:
    """Draw pictures, truth and the predictions of all models.

    Args:
        path: File to write, PNG.
        data: The dataset; its validation pictures are looked at.
        models: Title of each model -> its config and checkpoint.
        device: Such as ``'cuda'``; None: the best there is.
    """
    about = json.loads((data.folder / 'dataset.json').read_text())
    files = data.validation_files()
    masks = [_small(np.array(Image.open(mask))) for _, mask in files]
    found = {}
    with (
        quiet_hosts(),
        redirect_stdout(StringIO()),
        make_progress() as progress,
    ):
        task = progress.add_task(
            'looking for differences', total=len(models) * len(files)
        )
        for title, (config, checkpoint) in models.items():
            segment = Segmenter(
                load_model(str(config), str(checkpoint), device=device)
            )
            found[title] = []
            for picture, _ in files:
                (labels,) = segment([segment.prepare(picture)])
                found[title].append(_small(labels))
                progress.advance(task)
    shares = [
        disagreement(predicted, mask)
        for *predicted, mask in zip(*found.values(), masks, strict=True)
    ]
    chosen = most_different(shares)
    shown = [
        _small(read_picture(str(files[i][0])), cv2.INTER_AREA) for i in chosen
    ]
    titles = ['picture', 'truth']
    titles += list(found)
    figure, axes = make_grid(
        titles,
        shown,
        about,
        [masks[i] for i in chosen],
        f'Where the predictions differ most, of {len(files)} validation '
        'pictures',
    )
    for row, (index, picture) in enumerate(zip(chosen, shown, strict=True)):
        labels = [masks[index], *(maps[index] for maps in found.values())]
        drawn = [paint(one, about['palette']) for one in labels]
        for axis, image in zip(
            axes[row], [picture[..., ::-1], *drawn], strict=True
        ):
            axis.imshow(image, interpolation='nearest')
        name = textwrap.shorten(files[index][0].stem, 24, placeholder='...')
        axes[row, 0].set_ylabel(
            f'{name}\n{100 * shares[index]:.0f} % differ', fontsize=8
        )
    with whole(path) as partial:
        figure.savefig(partial)


def most_different(shares: Sequence[float]) -> list[int]:
    """Choose pictures, no two of one scene if they are frames of videos.

    Args:
        shares: How much predictions differ on each, in the order of names.

    Returns:
        Their places, the greatest difference first.
    """
    apart = len(shares) // (4 * ROWS)
    chosen = []
    for place in np.argsort(shares, kind='stable')[::-1].tolist():
        if all(abs(place - other) > apart for other in chosen):
            chosen.append(place)
    return chosen[:ROWS]


def disagreement(predicted: list[np.ndarray], mask: np.ndarray) -> float:
    """Tell on how much of a picture not all predictions are the same.

    Args:
        predicted: Class maps of the picture.
        mask: Its labels, 255 where none counts.

    Returns:
        Share of the pixels that count; 0 where none does.
    """
    differ = np.any([one != predicted[0] for one in predicted], axis=0)
    counted = differ[mask != 255]
    return float(counted.mean()) if counted.size else 0.0


def _small(image: np.ndarray, way: int = cv2.INTER_NEAREST) -> np.ndarray:
    height, width = image.shape[:2]
    scale = min(1, LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=way)
