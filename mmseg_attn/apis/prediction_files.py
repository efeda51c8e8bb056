# Copyright (c) mmseg_attn contributors.
"""Predict pictures, folders, videos and pairs into files."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from ..configs import load_config
from ..engine.config_errors import check_installed
from ..engine.data_checks import check_output_folder
from ..errors import UserError
from ..inference.files import Request, Summary, plan, run_jobs, sha256
from ..inference.outputs import Look
from ..inference.streamed import Streamer
from .loading import load_model
from .predictors import Segmenter
from .tasks import make_predictor, task_of
from .window_network import WindowNetwork
from .zoo import chosen_weights


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
    classes: Sequence[str] | dict | None = None,
    device: str | None = None,
    slide: int | None = None,
    tta: bool = False,
    depth: int | None = None,
    batch_size: int = 1,
    frames: int | None = None,
    blend: str = 'average',
    bands: Sequence[int] | None = None,
    resize: bool = True,
    overwrite: bool = False,
    stop_on_error: bool = False,
) -> Summary:
    """Predict pictures and videos, and write what is found beside overlays.

    A call that is broken off goes on from there when it is repeated: results
    are whole or not there, and those of other settings are refused.

    Args:
        config: Path or name of a config (see
            :func:`~mmseg_attn.apis.find_config`), or a loaded one.
        checkpoint: Path of the weights, or ``'zoo'``, as for
            :func:`~mmseg_attn.apis.load_model`.
        inputs: Pictures, videos, folders (with their subfolders) and globs; of
            a stereo network the left pictures. ``'0'`` is the first camera,
            and a URL (``http``, ``rtsp``) is a video: Ctrl-C ends either.
        out: Folder for ``overlay/`` and ``mask/``, ``instances/`` or the
            disparities, and for ``predict.json``, which says what made them.
            ``coco.json`` has the polygons of all pictures.
        look: How results are to look; by default as :class:`Look` says.
        save: ``'overlay'`` and kinds of predictions (``'mask'``, and on
            request alone ``'scores'``, ``'areas'``, ``'coco'``,
            ``'labelme'``, ``'geotiff'``; ``'instances'``; ``'pfm'``,
            ``'png'``, ``'depth'``).
            By default all that there are; of videos the overlay.
        overlay_format: ``'jpg'`` or ``'png'``, for pictures.
        right: Right picture for a stereo network, or the folder of the right
            pictures, which have the left ones' names.
        calibration: File for a stereo network, to give depth, see
            :func:`~mmseg_attn.inference.calibration.read_calibration`.
        classes: Names of the classes, as for
            :func:`~mmseg_attn.apis.load_model`.
        device: Device, as for :func:`~mmseg_attn.apis.load_model`.
        slide: Size of the windows, as for
            :func:`~mmseg_attn.apis.load_model`.
        tta: Average over the flips and scales of the config's
            ``tta_pipeline``.
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.pictures.read_picture`.
        batch_size: Pictures at a time; those of one size are gathered. Of
            pictures whose windows stream, windows at a time.
        frames: The most frames of each video, camera or URL.
        blend: How windows that overlap are put together, see
            :class:`~mmseg_attn.streaming.Windows`.
        bands: Bands of TIFF files that are red, green and blue, or the grey
            one, counted from 1.
        resize: Whether a segmentor's pictures are resized as the config's
            test pipeline says, or are predicted at their own size.
        overwrite: Redo what is there already instead of going on from it.
        stop_on_error: Stop at the first input that fails.

    Returns:
        How many inputs there are and what became of them.

    Raises:
        UserError: Nothing can be predicted: no such file, values that do not
            fit, or a folder that holds other things.
    """
    request = Request(
        inputs=inputs,
        out=out,
        look=look or Look(),
        save=save,
        overlay_format=overlay_format,
        batch_size=batch_size,
        frames=frames,
        overwrite=overwrite,
        stop_on_error=stop_on_error,
    )
    checkpoint = str(chosen_weights(config, checkpoint))
    config = load_config(config)
    check_installed(config)
    check_output_folder(config, request.out)
    task = task_of(config)
    wanted = plan(
        *(request, config.filename, task.output),
        *(task.takes_pairs, right, calibration),
    )
    model = load_model(
        config, checkpoint, device=device, classes=classes, slide=slide
    )
    predictor = make_predictor(model, tta, depth)
    if request.saves('scores'):
        predictor.keep_scores()
    if not resize:
        if not isinstance(predictor, Segmenter):
            raise UserError('--no-resize is for segmentors.')
        predictor.keep_size()
    output = task.output(model.dataset_meta, wanted.look)
    streamer = None
    if isinstance(predictor, Segmenter):
        network = WindowNetwork(predictor, blend)
        streamer = Streamer(network, output, batch_size, bands)
    content = {
        'config': str(config.filename),
        'config_sha256': sha256(config.pretty_text.encode()),
        'checkpoint': checkpoint,
        'checkpoint_sha256': sha256(_read(checkpoint)),
        'tta': tta,
        'slide': slide,
        'depth': depth,
        'blend': None if blend == 'average' else blend,
        'bands': bands and list(bands),
        'no_resize': None if resize else True,
        **wanted.settings,
        'classes': list(model.dataset_meta['classes']),
        'palette': model.dataset_meta['palette'],
    }
    return run_jobs(request, wanted.jobs, predictor, output, content, streamer)


def _read(checkpoint: str) -> bytes:
    if '://' in checkpoint:
        return checkpoint.encode()
    return Path(checkpoint).read_bytes()
