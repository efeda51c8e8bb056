# Copyright (c) mmseg_attn contributors.
"""Our code at another git revision, as one more contestant.

The revision is checked out beside and serves a child process. A contestant
travels there by pickle, which names functions and classes instead of copying
them: the child finds the revision's own. It is asked for one timing at a
time, so both are timed in turns.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def _git(*arguments):
    return subprocess.run(
        ['git', *arguments], cwd=HERE, capture_output=True, text=True
    )


@contextmanager
def base(revision):
    """Yield a function: a contestant of ours -> that of the revision.

    Raises:
        SystemExit: Git knows no such revision; in one line.
    """
    found = _git('rev-parse', '--verify', '--quiet', f'{revision}^{{commit}}')
    if found.returncode:
        raise SystemExit(f'--base: git knows no revision {revision!r} here')
    # A plain end would leave the checkout behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as parent:
        folder = f'{parent}/base'
        try:
            added = _git(
                'worktree', 'add', '--detach', folder, found.stdout.strip()
            )
            if added.returncode:
                raise SystemExit(f'--base: {added.stderr.strip()}')
            with _served(folder) as connection:
                yield partial(Remote, f'base {revision}', connection)
        finally:
            _git('worktree', 'remove', '--force', folder)


@contextmanager
def _served(folder):
    here, there = Pipe()
    child = subprocess.Popen(
        [sys.executable, __file__, str(there.fileno())],
        pass_fds=[there.fileno()],
        env={
            **os.environ,
            'PYTHONPATH': folder,
            'OMP_NUM_THREADS': str(torch.get_num_threads()),
        },
    )
    there.close()
    try:
        yield here
    finally:
        child.kill()
        child.wait()


class Remote:
    """Stands for a Contestant in the child process.

    ``results`` comes first: it sends the contestant. What fails there is a
    RuntimeError here.
    """

    def __init__(self, name, connection, ours):
        self.name = name
        self.connection = connection
        self.ours = ours
        self.has_relu = ours.has_relu
        self.amp = ours.amp
        self.scores = ours.scores

    def _ask(self, request):
        # Not send(): torch would share the tensors' memory with the child.
        try:
            self.connection.send_bytes(pickle.dumps(request))
            answer = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise RuntimeError(f'{self.name} died (out of memory?)') from None
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    def results(self):
        self._ask(self.ours)
        return self._ask('results')

    def seconds(self):
        return self._ask('seconds')

    def memory(self):
        return self._ask('memory')


def _serve(connection):
    contestant = None
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        try:
            request = pickle.loads(message)
            if isinstance(request, str):
                answer = getattr(contestant, request)()
            else:
                contestant, answer = request, None
        except Exception as error:
            answer = RuntimeError(f'{type(error).__name__}: {error}')
        connection.send_bytes(pickle.dumps(answer))


if __name__ == '__main__':
    _serve(Connection(int(sys.argv[1])))
