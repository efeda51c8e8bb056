# Copyright (c) mmseg_attn contributors.
"""Predict pictures, folders and videos into files, by an exported model."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..inference.files import Request, Summary, run_jobs, sha256
from ..inference.jobs import find_jobs
from ..inference.outputs import MaskOutput
from ..inference.streamed import Streamer
from .segmenter import ExportedSegmenter
from .sessions import open_session
from .windows import ExportedWindows


def predict_files(
    model: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path = 'predictions',
    *,
    provider: str = 'cpu',
    depth: int | None = None,
    blend: str = 'average',
    bands: Sequence[int] | None = None,
    **wishes: object,
) -> Summary:
    """Predict pictures and videos by an exported segmentor.

    A call that is broken off goes on from there when it is repeated.

    Args:
        model: The exported file.
        inputs: Pictures, videos, folders (with their subfolders) and globs.
        out: Folder of the results.
        provider: What the network runs on, as of
            :func:`~mmseg_attn.runtime.open_session`.
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
    segmenter = ExportedSegmenter(open_session(model, provider))
    if depth is not None:
        segmenter.set_depth(depth)
    if request.saves('scores'):
        segmenter.keep_scores()
    card, look = segmenter.card, request.look
    meta = {'classes': card.classes, 'palette': card.palette}
    output = MaskOutput(meta, look)
    jobs = find_jobs(
        [str(item) for item in request.inputs],
        request.out,
        request.save,
        request.overlay_format,
        MaskOutput.endings(look),
        MaskOutput.on_request,
    )
    settings = asdict(look)
    del settings['calibration']
    content = {
        'config': str(model),
        'checkpoint': str(model),
        'checkpoint_sha256': sha256(Path(model).read_bytes()),
        'depth': depth,
        'blend': None if blend == 'average' else blend,
        'bands': bands and list(bands),
        'frames': request.frames,
        **settings,
        **meta,
    }
    windows = ExportedWindows(segmenter, blend)
    streamer = Streamer(windows, output, request.batch_size, bands)
    return run_jobs(request, jobs, segmenter, output, content, streamer)
