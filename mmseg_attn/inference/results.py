# Copyright (c) mmseg_attn contributors.
"""Folders of results: what made them, and what is still to be done."""

import json
import re
from pathlib import Path

from ..errors import UserError
from ..files import whole
from .jobs import Job


def open_folder(
    out: Path, jobs: list[Job], content: dict, overwrite: bool
) -> list[Job]:
    """Note in the output folder what made it; return what is to be done.

    A result counts as done if it is younger than that note, which is
    renewed when everything is to be redone. So an interrupted overwriting
    never leaves results of two models taken for one.

    Args:
        out: The folder.
        jobs: All that is to be in it.
        content: What makes the results: names, hashes and settings.
        overwrite: Whether what is there may be replaced.

    Returns:
        The jobs without a result.

    Raises:
        UserError: The folder holds results of other settings, or what was
            not written so.
    """
    content = json.loads(json.dumps(content))  # tuples become lists
    note = out / 'predict.json'
    earlier = {}
    if note.is_file():
        try:
            earlier = json.loads(note.read_text('utf-8'))
        except ValueError:
            earlier = {'unreadable': True}
    elif not overwrite:
        for output in (o for job in jobs for o in job.outputs if o.exists()):
            raise UserError(
                f'{output} exists and was not written by this command; '
                'choose another --out, or replace it with --overwrite.'
            )
    names = ('config', 'checkpoint')  # paths: the hashes tell
    changed = [k for k in content if content[k] != earlier.get(k)]
    changed = [k for k in changed if k not in names]
    # A command of which every input failed has left nothing to protect.
    results = any(path.is_file() for path in out.rglob('*/*'))
    if earlier and changed and results and not overwrite:
        raise UserError(
            f'{out} holds results that were made with other settings '
            f'({", ".join(changed)}); choose another --out, or redo them '
            'with --overwrite.'
        )
    if not earlier or not results or overwrite:
        with whole(note) as path:
            earlier = content | {'overwrite': overwrite}
            path.write_text(json.dumps(earlier, indent=1), 'utf-8')
    since = note.stat().st_mtime_ns
    for output in (o for job in jobs for o in job.outputs if o.exists()):
        # Only an --overwrite leaves older results to be replaced.
        if output.stat().st_mtime_ns < since and not earlier.get('overwrite'):
            raise UserError(
                f'{output} is older than {note}, so that this command did '
                'not write it; choose another --out, or replace it with '
                '--overwrite.'
            )
    return [
        job
        for job in jobs
        if not all(
            output.exists() and output.stat().st_mtime_ns >= since
            for output in job.outputs
        )
    ]


def check_frames(folder: Path, ending: str) -> None:
    """Refuse to replace a folder that holds more than a video's results.

    Args:
        folder: Where the results of a video's frames are to go.
        ending: Ending of their files, such as ``.png``.

    Raises:
        UserError: There is another file.
    """
    for path in folder.glob('*'):
        if not re.fullmatch(rf'\d{{6}}\{ending}', path.name):
            raise UserError(
                f'{folder} holds {path.name}, which is no result of a video: '
                'move it away or name another folder with --out.'
            )
