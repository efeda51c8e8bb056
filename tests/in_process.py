# Copyright (c) mmseg_attn contributors.
"""Run a script as the shell does, without the seconds that a process takes."""

import contextlib
import io
import runpy
import sys
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from mmengine.logging import MMLogger


def run_script(path: Path | str, *arguments: object) -> CompletedProcess:
    """Run a Python script in this process.

    Args:
        path: The script.
        arguments: What follows it.

    Returns:
        Exit code and what was printed.
    """
    words = [str(path), *map(str, arguments)]
    folders = [str(Path(path).parent), *sys.path]
    out, err = io.StringIO(), io.StringIO()
    code = 0
    # mmengine names loggers by the second: one of a script before, within the
    # same, would go on writing to where that one's output went.
    MMLogger._instance_dict.clear()
    with (
        mock.patch.object(sys, 'argv', words),
        mock.patch.object(sys, 'path', folders),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_path(words[0], run_name='__main__')
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):
                print(code, file=sys.stderr)
                code = 1
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())
