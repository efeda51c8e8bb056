# Copyright (c) mmseg_attn contributors.
"""Cameras and addresses on the network that give video."""

import re
import signal
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Stream:
    """A camera, or an address that gives video.

    Attributes:
        address: Number of a camera, or a URL.
    """

    address: str

    @property
    def is_camera(self) -> bool:
        """Whether it is a camera of this machine."""
        return self.address.isdecimal()

    @property
    def name(self) -> str:
        """What its results are called: without a dot or a password."""
        if self.is_camera:
            return f'camera_{self.address}'
        parts = urlsplit(self.address)
        text = f'{parts.hostname or ""}_{parts.port or ""}{parts.path}'
        if parts.query:  # which channel, maybe beside a password
            text += f'_{zlib.crc32(parts.query.encode()):08x}'
        return re.sub(r'[^\w-]+', '_', text).strip('_') or parts.scheme

    def __str__(self) -> str:
        """As messages name it: without user, password and query."""
        if self.is_camera:
            return f'camera {self.address}'
        parts = urlsplit(self.address)
        place = parts.netloc.rpartition('@')[2]
        return parts._replace(netloc=place, query='', fragment='').geturl()


def is_stream(text: str) -> bool:
    """Tell a camera's number or a URL from a path.

    Args:
        text: What a user gives as an input. A number that is the name of a
            file or folder is that.
    """
    return '://' in text or (text.isdecimal() and not Path(text).exists())


@contextmanager
def ended_by_interrupt() -> Iterator[threading.Event]:
    """Let the first Ctrl-C ask for an end; the second one raises as ever.

    Yields:
        It is set by Ctrl-C. Outside of the main thread, which alone can
        listen, it never is.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
