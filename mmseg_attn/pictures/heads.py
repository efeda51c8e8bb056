# Copyright (c) mmseg_attn contributors.
"""What the head of a picture's file says, before its pixels are read."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

# OpenCV stops at this many pixels, Pillow at a sixth of it: pictures and their
# masks are the user's own, and as large as they are.
MOST_PIXELS = 2**30
Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # it refuses twice as many

TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
KINDS = {1: 'unsigned', 2: 'signed', 3: 'float'}
# TIFF tags.
SUBFILE, WIDTH, HEIGHT, BITS, MEANING, TURN = 254, 256, 257, 258, 262, 274
BANDS, EXTRA, FORMAT = 277, 338, 339
# Values of SUBFILE: a smaller copy (1), or what is transparent (4).
NO_PAGE = 1 | 4


@dataclass(frozen=True)
class Head:
    """What a file says of its picture.

    Attributes:
        width: In pixels, as stored.
        height: In pixels, as stored.
        turn: The orientation tag, 1 to 8; 1 is upright.
        bands: Channels.
        alpha: Whether one of them says what is transparent.
        bits: Size of each value.
        kind: ``'unsigned'``, ``'signed'`` or ``'float'``.
        pages: Pictures in the file; smaller copies do not count.
        tiff: Whether it is a TIFF file.
        white_first: Whether 0 is white there.
    """

    width: int
    height: int
    turn: int = 1
    bands: int = 3
    alpha: bool = False
    bits: int = 8
    kind: str = 'unsigned'
    pages: int = 1
    tiff: bool = False
    white_first: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels when it is turned upright."""
        if self.turn in (5, 6, 7, 8):
            return self.height, self.width
        return self.width, self.height


def read_head(data: bytes | str) -> Head | None:
    """Read the head of a picture's file.

    Args:
        data: The file's content, or its path.

    Returns:
        What it says; None where it is no picture that Pillow knows.

    Raises:
        FileNotFoundError: There is no such file.
        Image.DecompressionBombError: It is far too large.
    """
    try:
        with _opened(data) as file:
            if file.read(4) in TIFF:
                return _tiff_head(file)
            file.seek(0)
            with Image.open(file) as image:
                return _other_head(image)
    except (FileNotFoundError, Image.DecompressionBombError):
        raise
    # Pillow's readers raise whatever a broken file leads them to.
    except Exception:
        return None


def _opened(data: bytes | str) -> BinaryIO:
    return io.BytesIO(data) if isinstance(data, bytes) else open(data, 'rb')


def _other_head(image: Image.Image) -> Head:
    wide, real = image.mode.startswith('I'), image.mode == 'F'
    bands = image.getbands()
    # Pillow would decode a whole PNG to look behind its pixels.
    known = image.format != 'PNG' or 'exif' in image.info
    return Head(
        *image.size,
        turn=image.getexif().get(ExifTags.Base.Orientation, 1) if known else 1,
        bands=len(bands),
        alpha='A' in bands,
        bits=16 if wide else 32 if real else 8,
        kind='float' if real else 'unsigned',
        pages=getattr(image, 'n_frames', 1),
    )


def _tiff_head(file: BinaryIO) -> Head:
    # Pillow itself opens few kinds of values, and turns some pictures.
    pages = [
        tags
        for tags in _directories(file)
        if not int(tags.get(SUBFILE, 0)) & NO_PAGE
    ]
    tags = pages[0]
    bits = tags.get(BITS, 1)
    kind = tags.get(FORMAT, 1)
    return Head(
        int(tags[WIDTH]),
        int(tags[HEIGHT]),
        turn=int(tags.get(TURN, 1)),
        bands=int(tags.get(BANDS, 1)),
        alpha=any(value in (1, 2) for value in _tuple(tags.get(EXTRA, ()))),
        bits=max(_tuple(bits)),
        kind=KINDS.get(_tuple(kind)[0], 'unsigned'),
        pages=len(pages),
        tiff=True,
        white_first=tags.get(MEANING) == 0,
    )


def _tuple(value: object) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _directories(file: BinaryIO) -> Iterator[dict]:
    file.seek(0)
    start = file.read(8)
    if start[2:3] == b'+' or start[3:4] == b'+':  # more than 4 GiB
        start += file.read(8)
    tags = ImageFileDirectory_v2(start)
    seen = set()
    while tags.next and tags.next not in seen:
        seen.add(tags.next)
        file.seek(tags.next)
        tags.load(file)
        yield dict(tags)
