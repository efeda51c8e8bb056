# Copyright (c) mmseg_attn contributors.
"""Predict pictures, folders and videos into files, by an exported model."""

from collections.abc import Sequence
from pathlib import Path

from ..inference.files import Request, Summary, plan, run_jobs, sha256
from ..inference.outputs import DisparityOutput, MaskOutput
from ..inference.streamed import Streamer
from .card import STEREO
from .opening import open_runner
from .windows import ExportedWindows


def predict_files(
    model: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path = 'predictions',
    *,
    provider: str = 'cpu',
    right: str | Path | None = None,
    calibration: str | Path | None = None,
    depth: int | None = None,
    blend: str = 'average',
    bands: Sequence[int] | None = None,
    **wishes: object,
) -> Summary:
    """Predict pictures, videos or pairs by an exported model.

    A call that is broken off goes on from there when it is repeated.

    Args:
        model: The exported file.
        inputs: Pictures, videos, folders (with their subfolders) and globs;
            of a stereo network the left pictures.
        out: Folder of the results.
        provider: What the network runs on, as of
            :func:`~mmseg_attn.runtime.open_session`.
        right: Right picture for a stereo network, or the folder of the right
            pictures, which have the left ones' names.
        calibration: File for a stereo network, to give depth, see
            :func:`~mmseg_attn.inference.calibration.read_calibration`.
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.pictures.read_picture`.
        blend: How windows that overlap are put together, ``'average'`` or
            ``'centre'``.
        bands: Bands of TIFF files, as of
            :func:`~mmseg_attn.streaming.open_picture`.
        **wishes: How results are to be written, as
            :class:`~mmseg_attn.inference.files.Request` says.

    Returns:
        How many inputs there are and what became of them.

    Raises:
        UserError: Nothing can be predicted: no such file, values that do not
            fit, or a folder that holds other things.
    """
    request = Request(inputs=inputs, out=Path(out), **wishes)
    runner = open_runner(model, provider)
    pairs = runner.task == STEREO
    kind = DisparityOutput if pairs else MaskOutput
    wanted = plan(request, model, kind, pairs, right, calibration)
    if depth is not None:
        runner.set_depth(depth)
    if request.saves('scores'):
        runner.keep_scores()
    card = runner.card
    meta = {'classes': card.classes, 'palette': card.palette}
    output = kind(meta, wanted.look)
    content = {
        'config': str(model),
        'checkpoint': str(model),
        'checkpoint_sha256': sha256(Path(model).read_bytes()),
        'depth': depth,
        'blend': None if blend == 'average' else blend,
        'bands': bands and list(bands),
        **wanted.settings,
        **meta,
    }
    streamer = None
    if not pairs:
        windows = ExportedWindows(runner, blend)
        streamer = Streamer(windows, output, request.batch_size, bands)
    return run_jobs(request, wanted.jobs, runner, output, content, streamer)
