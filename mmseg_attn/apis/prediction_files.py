# Copyright (c) mmseg_attn contributors.
"""Predict pictures, folders, videos and pairs into files."""

import hashlib
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mmengine.config import Config

from ..configs import load_config
from ..engine.config_errors import check_installed
from ..engine.data_checks import check_output_folder
from ..errors import UserError
from .batches import check_batch_size
from .calibration import read_calibration
from .file_run import FileRun
from .jobs import find_jobs, pair_up
from .loading import load_model
from .outputs import SCORE_TYPES, Look, MaskOutput
from .region_files import join_coco
from .results import open_folder
from .tasks import Task, make_predictor, task_of


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
    frames: int | None = None,
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
            a stereo network the left pictures. ``'0'`` is the first camera,
            and a URL (``http``, ``rtsp``) is a video: Ctrl-C ends either.
        out: Folder for ``overlay/`` and ``mask/``, ``instances/`` or the
            disparities, and for ``predict.json``, which says what made them.
            ``coco.json`` has the polygons of all pictures.
        look: How results are to look; by default as :class:`Look` says.
        save: ``'overlay'`` and kinds of predictions (``'mask'``, and on
            request alone ``'scores'``, ``'areas'``, ``'coco'``,
            ``'labelme'``; ``'instances'``; ``'pfm'``, ``'png'``, ``'depth'``).
            By default all that there are; of videos the overlay.
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
        batch_size: Pictures at a time; those of one size are gathered.
        frames: The most frames of each video, camera or URL.
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
    check_batch_size(batch_size)
    if frames is not None and frames < 1:
        raise UserError(f'frames (--frames) must be 1 or more, got {frames}.')
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
    if task.output is not MaskOutput and (look.names or look.clear):
        raise UserError(
            '--names and --clear are for segmentors, and '
            f'{config.filename} is none.'
        )
    if calibration:
        look = replace(look, calibration=read_calibration(calibration))
    endings = task.output.endings(look)
    inputs = [str(item) for item in inputs]
    on_request = task.output.on_request
    jobs = find_jobs(inputs, out, save, overlay_format, endings, on_request)
    if task.takes_pairs:
        jobs = pair_up(jobs, right)
    model = load_model(
        config, checkpoint, device=device, classes=classes, slide=slide
    )
    predictor = make_predictor(model, tta, depth)
    if 'scores' in (save or ()):
        predictor.keep_scores()
    output = task.output(model.dataset_meta, look)
    content = {
        'config': str(config.filename),
        'config_sha256': _sha256(config.pretty_text.encode()),
        'checkpoint': checkpoint,
        'checkpoint_sha256': _sha256(_read(checkpoint)),
        'tta': tta,
        'slide': slide,
        'depth': depth,
        'frames': frames,
        **_settings(task, look),
        'classes': list(model.dataset_meta['classes']),
        'palette': model.dataset_meta['palette'],
    }
    if task.takes_pairs:
        content['right'] = str(Path(right).resolve())
    joined = out / 'coco.json'
    ours = overwrite or (out / 'predict.json').exists()
    if 'coco' in (save or ()) and joined.exists() and not ours:
        raise UserError(
            f'{joined} exists and was not written by this command; choose '
            'another --out, or replace it with --overwrite.'
        )
    todo = open_folder(out, jobs, content, overwrite)
    run = FileRun(
        predictor, output, batch_size, stop_on_error, len(todo), frames
    )
    started = time.monotonic()
    with run.progress:
        run(todo)
    if 'coco' in (save or ()):
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
