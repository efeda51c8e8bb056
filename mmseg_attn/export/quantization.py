# Copyright (c) mmseg_attn contributors.
"""Make the convolutions of an ONNX file compute in 8 bits."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError, need_package
from ..inference.jobs import find_jobs
from ..pictures import read_picture
from ..runtime import ExportedSegmenter, open_runner
from ..runtime.card import KEY, Card
from .writers import quiet

# Pictures that are looked at; more change the ranges little.
MOST_PICTURES = 64


def pictures_of(inputs: Sequence[str | Path]) -> list[Path]:
    """Choose the pictures to take ranges from, and look at them.

    Args:
        inputs: Files and folders of pictures.

    Returns:
        Up to :data:`MOST_PICTURES` of them.

    Raises:
        UserError: There is no picture, or one cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        nowhere = Path(folder, 'none')
        jobs = find_jobs(list(map(str, inputs)), nowhere, ['mask'])
    files = [job.source for job in jobs if not job.is_video]
    if not files:
        raise UserError(
            'int8 (--int8) needs pictures like those that the network '
            'will see: expected files or folders of them.'
        )
    files = files[:: -(-len(files) // MOST_PICTURES)]
    for file in files:
        read_picture(str(file))
    return files


def quantize(path: Path, card: Card, files: Sequence[Path]) -> None:
    """Quantise a file in place, statically, by the ranges that pictures give.

    Convolutions are quantised, with a scale for each of their channels;
    attention, normalisation and resizing stay in 32 bits.

    Args:
        path: The file, ending in ``.onnx``.
        card: What it is to say.
        files: Pictures to take the ranges from.

    Raises:
        UserError: A picture does not fit, or onnx is missing.
    """
    onnx = need_package('int8 (--int8)', 'onnx')
    quantization = need_package('int8 (--int8)', 'onnxruntime.quantization')
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, quiet():
        ready = Path(folder, 'ready.onnx')
        segmenter = open_runner(path)
        quant_pre_process(
            str(path), str(ready), skip_symbolic_shape=True, auto_merge=True
        )
        quantization.quantize_static(
            str(ready),
            str(path),
            _Pictures(segmenter, files),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=['Conv'],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            # Without it two products of 8 bits overflow on processors that
            # have no VNNI.
            reduce_range=not _has_vnni(),
        )
    network = onnx.load(str(path))
    entries = [item for item in network.metadata_props if item.key != KEY]
    del network.metadata_props[:]
    network.metadata_props.extend(entries)
    entry = network.metadata_props.add()
    entry.key, entry.value = KEY, card.to_json()
    onnx.save(network, str(path))


def _has_vnni() -> bool:
    info = Path('/proc/cpuinfo')
    return info.is_file() and 'vnni' in info.read_text()


class _Pictures:
    """Gives the pictures one after the other, as ONNX Runtime asks."""

    def __init__(
        self, segmenter: ExportedSegmenter, files: Sequence[Path]
    ) -> None:
        self._inputs = self._read(segmenter, files)

    @staticmethod
    def _read(
        segmenter: ExportedSegmenter, files: Sequence[Path]
    ) -> Iterator[dict[str, np.ndarray]]:
        window = segmenter.card.window
        for file in files:
            picture = segmenter.prepare(file).data['inputs']
            if window:
                picture = picture[..., : window[0], : window[1], :]
            segmenter.check_size(*picture.shape[-3:-1])
            yield {'pictures': np.ascontiguousarray(picture[None, ..., ::-1])}

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next picture, None after the last one."""
        return next(self._inputs, None)
