# Copyright (c) mmseg_attn contributors.
"""``python -m mmseg_attn predict``: pictures, folders and videos."""

import argparse
import errno
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config, DictAction
from PIL import Image

from ..configs import find_config, is_detector, is_stereo
from ..errors import UserError
from ..files import set_aside, whole
from ..hosts import HostError
from ..progress import make_progress, quiet_hosts
from ..video import read_video, write_video
from .jobs import Job, find_jobs, pair_up
from .outputs import InstanceOutput, MaskOutput

with quiet_hosts():
    from ..engine.config_errors import check_installed
    from .disparities import DisparityOutput, read_calibration
    from .inference import (
        Predictor,
        Sample,
        input_size,
        load_model,
        make_predictor,
    )

# What one bad picture may raise; anything else is a bug and stops the run.
FAILURES = (OSError, ValueError, RuntimeError, MemoryError, cv2.error)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('config', help='config file, or name of a packaged config')
    add('checkpoint', help='trained weights')
    add(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help='picture, video, folder (searched with its subfolders) or glob',
    )
    add(
        '-o',
        '--out',
        type=Path,
        default=Path('predictions'),
        help='folder for overlay/ and mask/ or instances/ '
        '(default: %(default)s)',
    )
    add(
        '--save',
        nargs='+',
        choices=['overlay', 'mask', 'instances', 'pfm', 'png', 'depth'],
        help='what to write: pictures, and class maps of a segmentor, boxes '
        'and masks of a detector as JSON, or disparities of a stereo network '
        'as PFM and as 16-bit PNG, and depth (default: all there are; of '
        'videos the overlay)',
    )
    add('--overlay-format', choices=['jpg', 'png'], default='jpg')
    add(
        '--opacity',
        type=float,
        default=0.5,
        help='of the colours, 0 to 1 (default: %(default)s)',
    )
    add(
        '--score',
        type=float,
        default=0.3,
        help='show and save instances of at least this score, 0 to 1 '
        '(default: %(default)s)',
    )
    add(
        '--legend',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='class names beside the overlay',
    )
    add(
        '--classes',
        type=lambda text: [name.strip() for name in text.split(',')],
        metavar='A,B,...',
        help="class names (default: the checkpoint's, else the config's)",
    )
    add(
        '--right',
        type=Path,
        help='of a stereo network: the right picture, or the folder of the '
        "right pictures, which have the left ones' names",
    )
    add(
        '--calibration',
        type=Path,
        metavar='FILE',
        help="of a stereo network, for depth: Middlebury's calib.txt, or a "
        'file with lines focal=PIXELS, baseline=LENGTH and perhaps '
        'doffs=PIXELS',
    )
    add('--device', help='such as cpu or cuda:0 (default: the best there is)')
    add('--batch-size', type=int, default=1, help='pictures at a time')
    add(
        '--tta',
        action='store_true',
        help="average over the flips and scales of the config's tta_pipeline",
    )
    add(
        '--slide',
        type=int,
        nargs='?',
        const=0,
        metavar='PIXELS',
        help='predict in overlapping windows, which bounds the memory that '
        "large pictures take (default size: the config's)",
    )
    add(
        '--overwrite',
        action='store_true',
        help='redo what is there already instead of going on from it',
    )
    add(
        '--stop-on-error',
        action='store_true',
        help='stop at the first input that fails instead of going on',
    )
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='change settings of the config, as key=value',
    )


def main(args: argparse.Namespace) -> int:
    try:
        with quiet_hosts():
            return _predict(args)
    except (UserError, OSError) as error:  # OSError: --out not writable
        raise SystemExit(f'Error: {error}') from error
    except KeyboardInterrupt:
        print('Stopped. The same command goes on from here.', file=sys.stderr)
        return 130


def _predict(args: argparse.Namespace) -> int:
    if not 0 <= args.opacity <= 1:
        raise UserError(f'--opacity must be 0 to 1, got {args.opacity}.')
    if args.batch_size < 1:
        raise UserError(f'--batch-size must be 1+, got {args.batch_size}.')
    if not 0 <= args.score <= 1:
        raise UserError(f'--score must be 0 to 1, got {args.score}.')
    config = Config.fromfile(find_config(args.config))
    config.merge_from_dict(args.cfg_options or {})
    check_installed(config)
    stereo = is_stereo(config)
    if not stereo and (args.right or args.calibration):
        raise UserError(
            '--right and --calibration are for stereo networks, and '
            f'{args.config} is none.'
        )
    output = InstanceOutput if is_detector(config) else MaskOutput
    if stereo:
        output = DisparityOutput
        calibration = args.calibration and read_calibration(args.calibration)
        args.calibration = calibration
    jobs = find_jobs(
        args.inputs,
        args.out,
        args.save,
        args.overlay_format,
        output.endings(args),
    )
    if stereo:
        jobs = pair_up(jobs, args.right)
    model = load_model(
        config,
        args.checkpoint,
        device=args.device,
        classes=args.classes,
        slide=args.slide,
    )
    predictor = make_predictor(model, args.tta)
    todo = _open_out(args, config, model.dataset_meta, jobs)
    run = _Run(predictor, output(model.dataset_meta, args), args, len(todo))
    started = time.monotonic()
    with run.progress:
        run(todo)
    above = ' (see above)' if run.failed else ''
    print(
        f'{run.done} of {len(jobs)} inputs done in '
        f'{time.monotonic() - started:.1f} s, {len(jobs) - len(todo)} were '
        f'done before, {run.failed} failed{above}. '
        f'Results: {args.out}'
    )
    return 1 if run.failed else 0


def _open_out(
    args: argparse.Namespace, config: Config, meta: dict, jobs: list[Job]
) -> list[Job]:
    """Note in the output folder what made it; return what is to be done.

    A result counts as done if it is younger than that note, which is
    renewed when everything is to be redone. So an interrupted --overwrite
    never leaves results of two models taken for one.
    """
    note = args.out / 'predict.json'
    checkpoint = args.checkpoint.encode()
    if '://' not in args.checkpoint:
        checkpoint = Path(args.checkpoint).read_bytes()
    content = {
        'config': args.config,
        'config_sha256': _sha256(config.pretty_text.encode()),
        'checkpoint': args.checkpoint,
        'checkpoint_sha256': _sha256(checkpoint),
        'tta': args.tta,
        'slide': args.slide,
        'opacity': args.opacity,
        'score': args.score,
        'legend': args.legend,
        'classes': list(meta['classes']),
        'palette': meta['palette'],
    }
    if is_stereo(config):
        content['right'] = str(args.right.resolve())
        content['calibration'] = args.calibration and asdict(args.calibration)
    earlier = {}
    if note.is_file():
        try:
            earlier = json.loads(note.read_text('utf-8'))
        except ValueError:
            earlier = {'unreadable': True}
    elif not args.overwrite:
        for output in (o for job in jobs for o in job.outputs if o.exists()):
            raise UserError(
                f'{output} exists and was not written by this command; '
                'choose another --out, or replace it with --overwrite.'
            )
    names = ('config', 'checkpoint')  # paths: the hashes tell
    changed = [k for k in content if content[k] != earlier.get(k)]
    changed = [k for k in changed if k not in names]
    # A command of which every input failed has left nothing to protect.
    results = any(path.is_file() for path in args.out.rglob('*/*'))
    if earlier and changed and results and not args.overwrite:
        raise UserError(
            f'{args.out} holds results that were made with other settings '
            f'({", ".join(changed)}); choose another --out, or redo them '
            'with --overwrite.'
        )
    if not earlier or not results or args.overwrite:
        with whole(note) as path:
            earlier = content | {'overwrite': args.overwrite}
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


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Run:
    """Works through the jobs, keeping count and going on after failures."""

    def __init__(
        self,
        predictor: Predictor,
        output: MaskOutput | InstanceOutput | DisparityOutput,
        args: argparse.Namespace,
        total: int,
    ) -> None:
        self.predictor, self.output, self.args = predictor, output, args
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
            if len(batch) == self.args.batch_size:
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
            endings = self.output.endings(self.args)
            folders = {}
            for kind, folder in job.data.items():
                _check_frames(folder, endings[kind])
                folders[kind] = stack.enter_context(whole(folder))
                folders[kind].mkdir()
            listed, count = set(), 0
            for picture, item in self.predictor.stream(
                video, self.args.batch_size
            ):
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
        if full or self.args.stop_on_error:
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


def _check_frames(folder: Path, ending: str) -> None:
    """Refuse to replace a folder that holds more than a video's results."""
    for path in folder.glob('*'):
        if not re.fullmatch(rf'\d{{6}}\{ending}', path.name):
            raise UserError(
                f'{folder} holds {path.name}, which is no result of a video: '
                'move it away or name another folder with --out.'
            )
