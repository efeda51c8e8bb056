# Copyright (c) mmseg_attn contributors.
"""A page of HTML that shows where pictures' positions look."""

import hashlib
import html
import json
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

import cv2
import numpy as np
from matplotlib import colormaps

from ..files import whole
from .overlay import ignored_colour

# Bytes of the page for each picture.
MOST_BYTES = 10_000_000
# The page without pictures, and what is written around a picture's maps.
AROUND = 150_000
# Pixels of the longer side of a picture on the page.
LONGEST = 1280
THUMBNAIL = 160


def picture_data(
    name: str, picture: np.ndarray, masks: dict[str, np.ndarray]
) -> dict:
    """Say for JSON what the page shows of a picture beside its maps.

    Args:
        name: What to call it.
        picture: (H, W, 3) uint8, BGR.
        masks: Title -> (H, W) class indices, of which those that are no class
            count for nothing.

    Returns:
        ``name``, ``width`` and ``height``; ``image`` and ``thumbnail``, of
        JPEG; ``size``, width and height of the image; and ``masks``, each with
        ``title`` and ``values`` (uint16 at the image's size, deflated,
        base64).
    """
    height, width = picture.shape[:2]
    size = _within((width, height), LONGEST)
    rows = (np.arange(size[1]) + 0.5) * height / size[1]
    columns = (np.arange(size[0]) + 0.5) * width / size[0]
    shown = np.ix_(rows.astype(int), columns.astype(int))
    return dict(
        name=name,
        width=width,
        height=height,
        size=size,
        image=_jpeg(picture, size),
        thumbnail=_jpeg(picture, _within(size, THUMBNAIL)),
        masks=[
            dict(title=title, values=_packed(mask[shown].astype('<u2')))
            for title, mask in masks.items()
        ],
    )


def room_for_maps(data: dict) -> int:
    """How many characters the maps of a picture may have.

    Args:
        data: From :func:`picture_data`.
    """
    return MOST_BYTES - AROUND - len(json.dumps(data))


def write_page(
    path: str | Path,
    pictures: Iterable[dict],
    *,
    title: str,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: Where to.
        pictures: What :func:`picture_data` returns of each, with ``maps`` and
            ``notes``, lines on how to read them.
        title: What the page is about.
        classes: Names of the classes.
        palette: (red, green, blue) of each.
    """
    style, script = _part('attention.css'), _part('attention.js')
    # The 256 colours of the sheet.
    inferno = colormaps['inferno'](np.arange(256), bytes=True)[:, :3]
    about = dict(
        classes=[str(name) for name in classes],
        palette=[[int(v) for v in colour] for colour in palette],
        ignored=ignored_colour(palette),
        colours=inferno.tolist(),
    )
    before, after = _part('attention.html').split('$pictures')
    values = dict(
        title=html.escape(title),
        style=style,
        script=script,
        # Nothing else runs or is styled, and nothing is fetched.
        style_hash=_sha256(style),
        script_hash=_sha256(script),
        about=_json(about),
    )
    with whole(path) as partial, open(partial, 'w', encoding='utf-8') as out:
        out.write(Template(before).substitute(values))
        for data in pictures:
            name, small = html.escape(data['name']), data['thumbnail']
            out.write(
                '<script type="application/json" class="picture" '
                f'data-name="{name}" data-thumbnail="{small}">'
                f'{_json(data)}</script>\n'
            )
        out.write(Template(after).substitute(values))


def _part(name: str) -> str:
    return files(__package__).joinpath('pages', name).read_text('utf-8')


def _sha256(text: str) -> str:
    return (
        'sha256-' + b64encode(hashlib.sha256(text.encode()).digest()).decode()
    )


def _json(value: object) -> str:
    """As JSON that cannot end the element it stands in."""
    return json.dumps(value, separators=(',', ':')).replace('<', '\\u003c')


def _packed(values: np.ndarray) -> str:
    return b64encode(zlib.compress(values.tobytes(), 9)).decode()


def _within(size: tuple[int, int], longest: int) -> tuple[int, int]:
    factor = min(1, longest / max(size))
    return tuple(max(1, round(side * factor)) for side in size)


def _jpeg(picture: np.ndarray, size: tuple[int, int]) -> str:
    if size != picture.shape[1::-1]:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return f'data:image/jpeg;base64,{b64encode(data).decode()}'
