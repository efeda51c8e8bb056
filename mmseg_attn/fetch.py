# Copyright (c) mmseg_attn contributors.
"""Download a file, going on where an earlier try broke off."""

import json
import shutil
import ssl
import threading
import time
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from rich.progress import Progress

from .errors import UserError
from .progress import make_progress

CHUNK = 2**20
NETWORK_ERRORS = (
    URLError,
    HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)
# Answers that may be another one a moment later.
PASSING = {408, 416, 429, 500, 502, 503, 504}


class NotFetched(UserError):
    """A file that the web does not give here: the user may bring it."""


def fetch(
    url: str, part: Path, retries: int = 4, timeout: float = 30.0
) -> None:
    """Download a file, with progress on standard error.

    What an earlier call has left in ``part`` is kept if the server still has
    the same file (by ETag or date, noted beside it) and can send the rest.

    Args:
        url: ``http(s)://`` or ``file://``.
        part: The file to write. It is complete only if this returns.
        retries: Further tries after a broken connection, with longer and
            longer waits.
        timeout: Seconds to wait for an answer.

    Raises:
        NotFetched: There is no such file, no connection, or a web page in the
            file's place.
        UserError: There is no room, or a number cannot be meant.
    """
    if retries < 0 or not 0 < timeout < threading.TIMEOUT_MAX:
        raise UserError(
            f'retries (--retries) is {retries}, timeout (--timeout) is '
            f'{timeout:g}: expected 0 or more tries, and seconds above 0.'
        )
    with make_progress() as progress:
        name = urlsplit(url).path.split('/')[-1]
        task = progress.add_task(f'{name}, MiB', visible=False)
        for trial in range(retries + 1):
            try:
                _receive(url, part, timeout, progress, task)
                return
            except NETWORK_ERRORS as error:
                refused = getattr(error, 'code', None) not in {None, *PASSING}
                if refused or trial == retries or url.startswith('file:'):
                    raise NotFetched(_explain(url, part, error)) from error
                if getattr(error, 'code', None) == 416:  # part is too long
                    discard(part)
                reason = getattr(error, 'reason', error)
                progress.console.print(
                    f'{reason}; once more in {2**trial} s',
                    highlight=False,
                    markup=False,
                )
            time.sleep(2**trial)


def discard(part: Path) -> None:
    """Remove a partial download and the note about it.

    Args:
        part: As in :func:`fetch`.
    """
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _receive(
    url: str, part: Path, timeout: float, progress: Progress, task: int
) -> None:
    """Ask once for what is missing, and write what comes."""
    known = _read_note(part, url)
    done = part.stat().st_size if known else 0
    if known and done == known['size']:
        return
    headers = {'User-Agent': 'mmseg_attn', 'Accept-Encoding': 'identity'}
    if done:
        headers['Range'] = f'bytes={done}-'
        headers['If-Range'] = known['version']
    with urlopen(Request(url, headers=headers), timeout=timeout) as response:
        answer = response.headers
        if answer.get_content_type() == 'text/html':
            raise NotFetched(
                f'{url} is a web page, not a checkpoint: the server shows an '
                f'error or wants a login. {_bring(url, part)}'
            )
        version = _version(answer)
        if response.status != 206:
            done = 0  # the whole file, since it is another one now, or asked
        elif version != known['version'] or not answer.get(
            'Content-Range', ''
        ).startswith(f'bytes {done}-'):
            discard(part)
            raise ConnectionError('the server sent another part than asked')
        length = answer.get('Content-Length')
        size = done + int(length) if length else None
        _check_room(part, (size or 0) - done)
        with open(part, 'ab' if done else 'wb') as stream:
            # Written once the old content is gone: a note never speaks of
            # another file's bytes.
            _note(part).write_text(
                json.dumps({'url': url, 'version': version, 'size': size})
            )
            progress.update(
                task,
                completed=done / 2**20,
                total=size and size / 2**20,
                visible=True,
            )
            while chunk := response.read(CHUNK):
                stream.write(chunk)
                done += len(chunk)
                progress.advance(task, len(chunk) / 2**20)
    if size is not None and part.stat().st_size != size:
        raise ConnectionError(
            f'the connection ended after {done:,} of {size:,} bytes'
        )


def _note(part: Path) -> Path:
    """Where it is noted which file a partial download is of."""
    return part.with_name(f'{part.name}.json')


def _read_note(part: Path, url: str) -> dict | None:
    """Read the note, if the download can go on with it."""
    try:
        note = json.loads(_note(part).read_text())
    except (OSError, ValueError):
        return None
    good = note['url'] == url and note['version'] and part.is_file()
    return note if good else None


def _version(headers: Message) -> str | None:
    """What tells a file from a later one of the same address."""
    tag = headers.get('ETag', '')
    # A weak tag may stand for files that differ in bytes.
    return tag if tag.startswith('"') else headers.get('Last-Modified')


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise UserError(
            f'{part.parent} has {free / 2**20:,.0f} MiB free, the download '
            f'needs {needed / 2**20:,.0f}: make room or choose another folder.'
        )


def _bring(url: str, part: Path) -> str:
    return (
        f'Where there is no way to it, download {url} elsewhere and put it '
        f'into {part.parent.resolve()}.'
    )


def _explain(url: str, part: Path, error: Exception) -> str:
    if isinstance(error, HTTPError):
        return (
            f'{url} cannot be had: HTTP {error.code} {error.reason}. '
            + _bring(url, part)
        )
    if isinstance(error, URLError) and url.startswith('file:'):
        return f'{url} cannot be read: {error.reason}.'
    if isinstance(error, URLError):
        return (
            f'{urlsplit(url).netloc} cannot be reached ({error.reason}). '
            + _bring(url, part)
        )
    ending = 'goes on from there' if _read_note(part, url) else 'tries again'
    return (
        f'{url} broke off: {error or type(error).__name__}. The same '
        f'command {ending}.'
    )
