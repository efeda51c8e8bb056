# Copyright (c) mmseg_attn contributors.
"""Open an exported file with what runs it on pictures."""

from pathlib import Path

from .clips import ExportedClipSegmenter
from .runner import ExportedRunner
from .segmenter import ExportedSegmenter
from .sessions import open_session
from .stereo import ExportedStereoMatcher

RUNNERS = {
    runner.task: runner
    for runner in (
        ExportedSegmenter,
        ExportedClipSegmenter,
        ExportedStereoMatcher,
    )
}


def open_runner(path: str | Path, provider: str = 'cpu') -> ExportedRunner:
    """Open an exported file.

    Args:
        path: The file.
        provider: What it runs on, as of
            :func:`~mmseg_attn.runtime.open_session`.

    Returns:
        What runs it: ``prepare`` reads an input, a call predicts a batch, and
        ``stream`` predicts the frames of a video.

    Raises:
        UserError: The file cannot be opened or run here.
    """
    session = open_session(path, provider)
    return RUNNERS[session.card.task](session)
