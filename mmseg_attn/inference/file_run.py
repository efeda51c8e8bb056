# Copyright (c) mmseg_attn contributors.
"""Predict pictures and videos one after the other into files."""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

import numpy as np
from PIL import Image

from ..errors import UserError
from ..files import set_aside, whole
from ..hosts import HostError
from ..pictures.opencv import OPENCV_ERRORS
from ..progress import make_progress
from ..video import read_video, write_video
from .batches import batches
from .jobs import Job
from .outputs import Output
from .region_files import Origin
from .results import check_frames
from .samples import Runner, Sample
from .streamed import Streamer

# What one bad picture may raise; anything else is a bug and stops the run.
FAILURES = (OSError, ValueError, RuntimeError, MemoryError, *OPENCV_ERRORS)


class FileRun:
    """Works through the jobs, keeping count and going on after failures.

    Args:
        predictor: What runs the model.
        output: What draws and saves what it predicts.
        batch_size: Pictures at a time.
        stop_on_error: Stop at the first input that fails.
        total: How many jobs there will be.
        frames: The most frames of a video that are looked at.
        streamer: What segments pictures in windows that stream, where it
            can; None where nothing does.

    Attributes:
        done: Jobs that were done.
        failed: Jobs that failed.
        progress: Shows how far it is.
    """

    def __init__(
        self,
        predictor: Runner,
        output: Output,
        batch_size: int,
        stop_on_error: bool,
        total: int,
        frames: int | None = None,
        streamer: Streamer | None = None,
    ) -> None:
        self.predictor, self.output = predictor, output
        self.batch_size, self.stop_on_error = batch_size, stop_on_error
        self.frames, self.streamer = frames, streamer
        self.done = self.failed = 0
        self.progress = make_progress()
        self.task = self.progress.add_task('inputs', total=total)

    def __call__(self, jobs: list[Job]) -> None:
        """Predict all jobs and write their results."""
        for batch in batches(self._samples(jobs), self.batch_size):
            self._pictures(batch)

    def _samples(self, jobs: list[Job]) -> Iterator[tuple[Job, Sample]]:
        """Prepare the pictures; do the videos between them."""
        for job in jobs:
            if job.is_video:
                with self._counted(job):
                    self._video(job)
                continue
            if self.streamer and self._streamed(job):
                continue
            try:
                pair = (job.source, job.right)
                sample = self.predictor.prepare(
                    pair if job.right else job.source
                )
            except FAILURES as error:
                self._failed(job, error)
            else:
                yield job, sample

    def _streamed(self, job: Job) -> bool:
        """Do a picture whose windows stream; False if it has to be whole."""
        try:
            if not self.streamer.takes(job):
                return False
        except FAILURES as error:
            self._failed(job, error)
            return True
        with self._counted(job):
            self.streamer(job, self.progress)
        return True

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
                origin = Origin(job.file_name, job.source)
                self.output.save(kind, path, found, origin)
        if job.overlay:
            listed = self.output.classes_in(found)
            shown = self.output.draw(picture, found, listed)
            with whole(job.overlay) as path:
                Image.fromarray(shown[..., ::-1]).save(path, quality=95)

    def _video(self, job: Job) -> None:
        with ExitStack() as stack:
            video = stack.enter_context(read_video(job.source))
            task = self.progress.add_task(
                f'frames of {job.source.name}',
                total=self.frames or video.frames or None,
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
            frames = islice(video, self.frames)
            for picture, item in self.predictor.stream(
                frames, self.batch_size
            ):
                for kind, folder in folders.items():
                    path = folder / f'{count:06d}{endings[kind]}'
                    # As a program that takes videos apart names them.
                    source = path.with_suffix('.png')
                    name = f'{job.name.as_posix()}/{source.name}'
                    origin = Origin(name, source)
                    self.output.save(kind, path, item, origin)
                if writer:
                    listed |= self.output.classes_in(item)
                    shown = self.output.draw(picture, item, listed)
                    time = video.time / 1000 if video.live else None
                    writer.write(shown, time)
                count += 1
                self.progress.update(task, completed=count)
            if not count:
                raise UserError(f'{job.source} has no frame to be read.')
        if video.stop.is_set():
            self.progress.console.print(f'{job.source}: {count} frames')
        if count == self.frames or video.stop.is_set():
            return
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
