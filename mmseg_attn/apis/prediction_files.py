# Copyright (c) mmseg_attn contributors.
"""Predict pictures, folders, videos and pairs into files."""

import errno
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from PIL import Image

from ..configs import load_config
from ..engine.config_errors import check_installed
from ..engine.data_checks import check_output_folder
from ..errors import UserError
from ..files import set_aside, whole
from ..hosts import HostError
from ..progress import make_progress
from ..video import read_video, write_video
from .calibration import read_calibration
from .jobs import Job, find_jobs, pair_up
from .loading import load_model
from .outputs import Look, Output
from .predictors import Predictor, Sample, check_batch_size, input_size
from .results import check_frames, open_folder
from .tasks import Task, make_predictor, task_of

# What one bad picture may raise; anything else is a bug and stops the run.
FAILURES = (OSError, ValueError, RuntimeError, MemoryError, cv2.error)


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


def predict_files(
    config: str | Path | Config,
    checkpoint: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path = 'predictions',
    *,
    look: Look | None = None,
    save: Sequence[str] | None = None,
    overlay_format: str = 'jpg',
    right: str | Path | None = None,
    calibration: str | Path | None = None,
    classes: Sequence[str] | None = None,
    device: str | None = None,
    slide: int | None = None,
    tta: bool = False,
    depth: int | None = None,
    batch_size: int = 1,
    overwrite: bool = False,
    stop_on_error: bool = False,
) -> Summary:
    """Predict pictures and videos, and write what is found beside overlays.

    A call that is broken off goes on from there when it is repeated: results
    are whole or not there, and those of other settings are refused.

    Args:
        config: Path or name of a config (see
            :func:`~mmseg_attn.apis.find_config`), or a loaded one.
        checkpoint: Path of the weights.
        inputs: Pictures, videos, folders (with their subfolders) and globs; of
            a stereo network the left pictures.
        out: Folder for ``overlay/`` and ``mask/``, ``instances/`` or the
            disparities, and for ``predict.json``, which says what made them.
        look: How results are to look; by default as :class:`Look` says.
        save: ``'overlay'`` and kinds of predictions (``'mask'``;
            ``'instances'``; ``'pfm'``, ``'png'``, ``'depth'``). By default all
            that there are; of videos the overlay.
        overlay_format: ``'jpg'`` or ``'png'``, for pictures.
        right: Right picture for a stereo network, or the folder of the right
            pictures, which have the left ones' names.
        calibration: File for a stereo network, to give depth, see
            :func:`~mmseg_attn.apis.calibration.read_calibration`.
        classes: Names of the classes, as for
            :func:`~mmseg_attn.apis.load_model`.
        device: Device, as for :func:`~mmseg_attn.apis.load_model`.
        slide: Size of the windows, as for
            :func:`~mmseg_attn.apis.load_model`.
        tta: Average over the flips and scales of the config's
            ``tta_pipeline``.
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.datasets.pictures.read_picture`.
        batch_size: Pictures at a time.
        overwrite: Redo what is there already instead of going on from it.
        stop_on_error: Stop at the first input that fails.

    Returns:
        How many inputs there are and what became of them.

    Raises:
        UserError: Nothing can be predicted: no such file, values that do not
            fit, or a folder that holds other things.
    """
    look = look or Look()
    for name, value in (('opacity', look.opacity), ('score', look.score)):
        if not 0 <= value <= 1:
            raise UserError(
                f'{name} (--{name}) must be 0 to 1, got {value:g}.'
            )
    check_batch_size(batch_size)
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    for item in inputs:
        if not isinstance(item, (str, os.PathLike)):
            raise UserError(
                f'got a {type(item).__name__} among the inputs, expected '
                'paths; predict takes pictures in memory.'
            )
    save = [save] if isinstance(save, str) else save
    if not inputs:
        raise UserError('there are no inputs: expected pictures or folders.')
    if overlay_format not in ('jpg', 'png'):
        raise UserError(
            f'overlay_format is {overlay_format!r}, expected jpg or png.'
        )
    out, checkpoint = Path(out), str(checkpoint)
    config = load_config(config)
    check_installed(config)
    check_output_folder(config, out)
    task = task_of(config)
    if not task.takes_pairs and (right or calibration):
        raise UserError(
            '--right and --calibration are for stereo networks, and '
            f'{config.filename} is none.'
        )
    if calibration:
        look = replace(look, calibration=read_calibration(calibration))
    endings = task.output.endings(look)
    inputs = [str(item) for item in inputs]
    jobs = find_jobs(inputs, out, save, overlay_format, endings)
    if task.takes_pairs:
        jobs = pair_up(jobs, right)
    model = load_model(
        config, checkpoint, device=device, classes=classes, slide=slide
    )
    predictor = make_predictor(model, tta, depth)
    content = {
        'config': str(config.filename),
        'config_sha256': _sha256(config.pretty_text.encode()),
        'checkpoint': checkpoint,
        'checkpoint_sha256': _sha256(_read(checkpoint)),
        'tta': tta,
        'slide': slide,
        'depth': depth,
        **_settings(task, look),
        'classes': list(model.dataset_meta['classes']),
        'palette': model.dataset_meta['palette'],
    }
    if task.takes_pairs:
        content['right'] = str(Path(right).resolve())
    todo = open_folder(out, jobs, content, overwrite)
    output = task.output(model.dataset_meta, look)
    run = _Run(predictor, output, batch_size, stop_on_error, len(todo))
    started = time.monotonic()
    with run.progress:
        run(todo)
    return Summary(
        inputs=len(jobs),
        done=run.done,
        earlier=len(jobs) - len(todo),
        failed=run.failed,
        seconds=time.monotonic() - started,
    )


def _settings(task: Task, look: Look) -> dict:
    settings = asdict(look)
    if not task.takes_pairs:
        del settings['calibration']
    return settings


def _read(checkpoint: str) -> bytes:
    if '://' in checkpoint:
        return checkpoint.encode()
    return Path(checkpoint).read_bytes()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Run:
    """Works through the jobs, keeping count and going on after failures."""

    def __init__(
        self,
        predictor: Predictor,
        output: Output,
        batch_size: int,
        stop_on_error: bool,
        total: int,
    ) -> None:
        self.predictor, self.output = predictor, output
        self.batch_size, self.stop_on_error = batch_size, stop_on_error
        self.done = self.failed = 0
        self.progress = make_progress()
        self.task = self.progress.add_task('inputs', total=total)

    def __call__(self, jobs: list[Job]) -> None:
        batch = []
        for job in jobs:
            if job.is_video:
                with self._counted(job):
                    self._video(job)
                continue
            try:
                pair = (job.source, job.right)
                sample = self.predictor.prepare(
                    pair if job.right else job.source
                )
            except FAILURES as error:
                self._failed(job, error)
                continue
            if batch and input_size(sample) != input_size(batch[0][1]):
                self._pictures(batch)
                batch = []
            batch.append((job, sample))
            if len(batch) == self.batch_size:
                self._pictures(batch)
                batch = []
        if batch:
            self._pictures(batch)

    def _pictures(self, batch: list[tuple[Job, Sample]]) -> None:
        jobs, samples = zip(*batch, strict=True)
        try:
            found = self.predictor(samples)
        except FAILURES as error:
            if len(batch) == 1:
                self._failed(jobs[0], error)
                return
            for single in batch:  # to find the one that fails
                self._pictures([single])
            return
        for job, sample, item in zip(jobs, samples, found, strict=True):
            with self._counted(job):
                self._save_picture(job, sample.picture, item)

    def _save_picture(
        self, job: Job, picture: np.ndarray, found: object
    ) -> None:
        for kind, file in job.data.items():
            with whole(file) as path:
                self.output.save(kind, path, found)
        if job.overlay:
            listed = self.output.classes_in(found)
            shown = self.output.draw(picture, found, listed)
            with whole(job.overlay) as path:
                Image.fromarray(shown[..., ::-1]).save(path, quality=95)

    def _video(self, job: Job) -> None:
        with ExitStack() as stack:
            video = stack.enter_context(read_video(job.source))
            task = self.progress.add_task(
                f'frames of {job.source.name}', total=video.frames or None
            )
            stack.callback(self.progress.remove_task, task)
            writer = None
            if job.overlay:
                path = stack.enter_context(whole(job.overlay))
                writer = stack.enter_context(write_video(path, video.fps))
            endings = self.output.endings(self.output.look)
            folders = {}
            for kind, folder in job.data.items():
                check_frames(folder, endings[kind])
                folders[kind] = stack.enter_context(whole(folder))
                folders[kind].mkdir()
            listed, count = set(), 0
            for picture, item in self.predictor.stream(video, self.batch_size):
                for kind, folder in folders.items():
                    name = f'{count:06d}{endings[kind]}'
                    self.output.save(kind, folder / name, item)
                if writer:
                    listed |= self.output.classes_in(item)
                    writer.write(self.output.draw(picture, item, listed))
                count += 1
                self.progress.update(task, completed=count)
            if not count:
                raise UserError(f'{job.source} has no frame to be read.')
        # The count is a guess, and where the frame rate varies a bad one.
        reached = max(count, round(video.time * video.fps / 1000) + 1)
        if video.frames - reached > max(1, video.frames // 100):
            kept = [set_aside(output) for output in job.outputs]
            raise UserError(
                f'{job.source} ends early: only {count} of its '
                f'{video.frames} frames could be read. The results of these '
                f'are in {", ".join(map(str, kept))}.'
            )

    @contextmanager
    def _counted(self, job: Job) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            self._failed(job, error)
        else:
            self.done += 1
            self.progress.advance(self.task)

    def _failed(self, job: Job, error: Exception) -> None:
        full = getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT)
        message = ' '.join(str(error).split()) or type(error).__name__
        if str(job.source) not in message:
            message = f'{job.source}: {message}'
        if _is_out_of_memory(error):
            message = (
                f'{job.source} does not fit into memory; try --slide, a '
                'smaller --batch-size, or --device cpu.'
            )
        if full or self.stop_on_error:
            raise UserError(
                f'{message.removesuffix(".")}. Stopped after {self.done} '
                'inputs, whose results are whole; the same command goes on '
                'from here.'
            ) from error
        self.failed += 1
        self.progress.console.print(
            message, style='red', highlight=False, markup=False, soft_wrap=True
        )
        self.progress.advance(self.task)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and HostError.OUT_OF_MEMORY.found_in(error) is not None
    )
