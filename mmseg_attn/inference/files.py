# Copyright (c) mmseg_attn contributors.
"""Predict pictures and videos into files, whatever runs the model."""

import hashlib
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..errors import UserError
from .batches import check_batch_size
from .calibration import read_calibration
from .file_run import FileRun
from .jobs import Job, find_jobs, pair_up
from .outputs import SCORE_TYPES, Look, MaskOutput, Output
from .region_files import join_coco
from .results import open_folder
from .samples import Runner
from .streamed import Streamer


@dataclass(frozen=True)
class Summary:
    """What became of the inputs.

    Attributes:
        inputs: How many there are.
        done: Predicted now.
        earlier: Predicted by an earlier call, and left as they are.
        failed: Not predicted; each was named on standard error.
        seconds: Time of the predictions.
    """

    inputs: int
    done: int
    earlier: int
    failed: int
    seconds: float


@dataclass(frozen=True)
class Request:
    """What is to be predicted, and how the results are to be written.

    Attributes:
        inputs: Pictures, videos, folders (with their subfolders), globs,
            numbers of cameras and URLs.
        out: Folder of the results.
        look: How results are to look.
        save: Kinds of results; None for the common ones.
        overlay_format: ``'jpg'`` or ``'png'``, for pictures.
        batch_size: Pictures at a time; those of one size are gathered. Of
            pictures whose windows stream, windows at a time.
        frames: The most frames of each video, camera or URL.
        overwrite: Redo what is there already instead of going on from it.
        stop_on_error: Stop at the first input that fails.

    Raises:
        UserError: A value does not fit.
    """

    inputs: Sequence[str | Path]
    out: Path
    look: Look = field(default_factory=Look)
    save: Sequence[str] | None = None
    overlay_format: str = 'jpg'
    batch_size: int = 1
    frames: int | None = None
    overwrite: bool = False
    stop_on_error: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.inputs, (str, os.PathLike)):
            object.__setattr__(self, 'inputs', [self.inputs])
        if isinstance(self.save, str):
            object.__setattr__(self, 'save', [self.save])
        object.__setattr__(self, 'out', Path(self.out))
        self._check_look()
        check_batch_size(self.batch_size)
        if self.frames is not None and self.frames < 1:
            raise UserError(
                f'frames (--frames) must be 1 or more, got {self.frames}.'
            )
        for item in self.inputs:
            if not isinstance(item, (str, os.PathLike)):
                raise UserError(
                    f'got a {type(item).__name__} among the inputs, expected '
                    'paths; predict takes pictures in memory.'
                )
        if not self.inputs:
            raise UserError(
                'there are no inputs: expected pictures or folders.'
            )
        if self.overlay_format not in ('jpg', 'png'):
            raise UserError(
                f'overlay_format is {self.overlay_format!r}, expected jpg or '
                'png.'
            )

    def _check_look(self) -> None:
        look = self.look
        for name, value in (('opacity', look.opacity), ('score', look.score)):
            if not 0 <= value <= 1:
                raise UserError(
                    f'{name} (--{name}) must be 0 to 1, got {value:g}.'
                )
        if not look.tolerance >= 0:
            raise UserError(
                'tolerance (--tolerance) must be 0 or more pixels, got '
                f'{look.tolerance:g}.'
            )
        if look.score_type not in SCORE_TYPES:
            raise UserError(
                f'score_type (--score-type) is {look.score_type!r}, expected '
                f'{" or ".join(SCORE_TYPES)}.'
            )

    def saves(self, kind: str) -> bool:
        """Whether a kind of results is asked for by name."""
        return kind in (self.save or ())


@dataclass(frozen=True)
class Plan:
    """What a request comes to for a kind of model.

    Attributes:
        jobs: The inputs with where their results go.
        look: How results are to look, with the calibration of pairs.
        settings: What of the request makes the results.
    """

    jobs: list[Job]
    look: Look
    settings: dict


def plan(
    request: Request,
    name: object,
    output: type[Output],
    pairs: bool = False,
    right: str | Path | None = None,
    calibration: str | Path | None = None,
) -> Plan:
    """Find the inputs of a request, and refuse what the model cannot do.

    Args:
        request: What is asked for.
        name: The model, for messages.
        output: What draws and saves what it finds.
        pairs: Whether it takes pairs of pictures.
        right: Right picture of a pair, or the folder of the right pictures,
            which have the left ones' names.
        calibration: File for a stereo network, to give depth, see
            :func:`~mmseg_attn.inference.calibration.read_calibration`.

    Returns:
        What is to be done.

    Raises:
        UserError: A wish is for other models, or there is no such input.
    """
    if not pairs and (right or calibration):
        raise UserError(
            '--right and --calibration are for stereo networks, and '
            f'{name} is none.'
        )
    look = request.look
    if output is not MaskOutput and (look.names or look.clear):
        raise UserError(
            f'--names and --clear are for segmentors, and {name} is none.'
        )
    if calibration:
        look = replace(look, calibration=read_calibration(calibration))
    jobs = find_jobs(
        [str(item) for item in request.inputs],
        request.out,
        request.save,
        request.overlay_format,
        output.endings(look),
        output.on_request,
    )
    settings = {'frames': request.frames, **asdict(look)}
    if pairs:
        jobs = pair_up(jobs, right)
        settings['right'] = str(Path(right).resolve())
    else:
        del settings['calibration']
    return Plan(jobs, look, settings)


def run_jobs(
    request: Request,
    jobs: Sequence[Job],
    runner: Runner,
    output: Output,
    content: dict,
    streamer: Streamer | None = None,
) -> Summary:
    """Predict what is not done yet, and write it.

    Args:
        request: What is asked for.
        jobs: Its inputs with where their results go.
        runner: What runs the model.
        output: What draws and saves what it finds.
        content: What makes the results: names, hashes and settings.
        streamer: What segments pictures in windows that stream, where it
            can; None where nothing does.

    Returns:
        How many inputs there are and what became of them.

    Raises:
        UserError: The folder holds other things.
    """
    joined = request.out / 'coco.json'
    ours = request.overwrite or (request.out / 'predict.json').exists()
    if request.saves('coco') and joined.exists() and not ours:
        raise UserError(
            f'{joined} exists and was not written by this command; choose '
            'another --out, or replace it with --overwrite.'
        )
    if streamer and request.save is None:
        jobs = [streamer.with_place(job) for job in jobs]
    todo = open_folder(request.out, jobs, content, request.overwrite)
    if streamer:
        streamer.made = (request.out / 'predict.json').stat().st_mtime_ns
    run = FileRun(
        runner,
        output,
        request.batch_size,
        request.stop_on_error,
        len(todo),
        request.frames,
        streamer,
    )
    started = time.monotonic()
    with run.progress:
        run(todo)
    if request.saves('coco'):
        found = [job.data['coco'] for job in jobs if job.data['coco'].exists()]
        parts = [sorted(p.iterdir()) if p.is_dir() else [p] for p in found]
        join_coco(itertools.chain(*parts), joined)
    return Summary(
        inputs=len(jobs),
        done=run.done,
        earlier=len(jobs) - len(todo),
        failed=run.failed,
        seconds=time.monotonic() - started,
    )


def sha256(data: bytes) -> str:
    """The hash that tells whether a file is the same.

    Args:
        data: Its content.
    """
    return hashlib.sha256(data).hexdigest()
