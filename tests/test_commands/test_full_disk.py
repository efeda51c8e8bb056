# Copyright (c) mmseg_attn contributors.
"""Files that cannot be written whole are not there."""

import errno
import resource
import signal
import subprocess
import sys

import pytest

from mmseg_attn.files import gathered


def limit_files():
    """Writes beyond 5000 bytes of a file fail, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))


@pytest.mark.parametrize('kind', [[], ['--stereo'], ['--clips', '3']])
def test_scenes(tmp_path, kind):
    done = subprocess.run(
        [
            *(sys.executable, '-B', '-m', 'mmseg_attn', 'scenes'),
            *(tmp_path / 'out', '--train', '4', '--val', '4', *kind),
        ],
        capture_output=True,
        text=True,
        preexec_fn=limit_files,
    )
    assert done.returncode == 1
    assert done.stderr.startswith('Error: [Errno')
    assert done.stderr.count('\n') == 1
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]


def test_gathered_files_appear_together(tmp_path):
    (tmp_path / 'own.txt').write_text('kept')
    (tmp_path / 'a.txt').write_text('old')
    with pytest.raises(OSError), gathered(tmp_path) as folder:
        (folder / 'a.txt').write_text('new')
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert (tmp_path / 'a.txt').read_text() == 'old'
    with gathered(tmp_path, lambda: False) as folder:  # not the main process
        (folder / 'a.txt').write_text('new')
    assert (tmp_path / 'a.txt').read_text() == 'old'
    with gathered(tmp_path) as folder:
        (folder / 'inner').mkdir()
        (folder / 'inner/b.txt').write_text('new')
        assert not (tmp_path / 'inner').exists()
    # Also what the other process had written.
    assert (tmp_path / 'a.txt').read_text() == 'new'
    assert (tmp_path / 'inner/b.txt').read_text() == 'new'
    assert (tmp_path / 'own.txt').read_text() == 'kept'
    assert not (tmp_path / '.partial').exists()
