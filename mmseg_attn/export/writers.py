# Copyright (c) mmseg_attn contributors.
"""Write a network in each format, with its card."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError, need_package
from ..runtime.card import KEY, Card

# Of the ONNX files: the first with everything that torch's exporter writes.
OPSET = 18
# Layers of a network see no smaller maps: 32 is the largest stride.
LEAST = 32


def dynamic_shapes(pictures: Tensor, fixed: bool) -> dict:
    """Say which axes of the pictures are open.

    Args:
        pictures: An example: one alone, to take no more at a time, or two.
        fixed: Whether height and width are not.
    """
    axes = [] if len(pictures) == 1 else [0]
    if not fixed:
        axes += [pictures.ndim - 3, pictures.ndim - 2]
    return {'pictures': dict.fromkeys(axes, torch.export.Dim.DYNAMIC)}


def trace(
    network: nn.Module, pictures: Tensor, fixed: bool
) -> torch.export.ExportedProgram:
    """Trace a network.

    Args:
        network: From pictures to what is wanted.
        pictures: An example: one picture, clip or pair alone, to take no more
            at a time, or two.
        fixed: Whether height and width are those of the example.

    Raises:
        UserError: It cannot be traced.
    """
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(
                network,
                (pictures,),
                dynamic_shapes=dynamic_shapes(pictures, fixed),
                strict=False,
            )
    # torch's exporter raises many classes, most of them its own.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        hint = '' if fixed else ' Try --fixed-size HEIGHT WIDTH.'
        raise UserError(
            f'the network cannot be exported: {reason:.300}.{hint}'
        ) from error


def write_program(
    program: torch.export.ExportedProgram, card: Card, path: Path
) -> None:
    """Write a file ``.pt2``.

    Args:
        program: The traced network.
        card: What the file is to say.
        path: Where to.
    """
    with quiet():
        extra = {f'{KEY}.json': card.to_json()}
        torch.export.save(program, str(path), extra_files=extra)


def write_onnx(
    program: torch.export.ExportedProgram, card: Card, path: Path
) -> None:
    """Write a file ``.onnx`` with its weights inside.

    Args:
        program: The traced network.
        card: What the file is to say.
        path: Where to.

    Raises:
        UserError: onnx or onnxscript is missing.
    """
    for name in ('onnx', 'onnxscript'):
        need_package(f'a file {path.suffix}', name)
    with quiet():
        found = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=['pictures'],
            output_names=[card.output],
        )
        found.model.metadata_props[KEY] = card.to_json()
        found.save(str(path), external_data=False)


def write_openvino(
    program: torch.export.ExportedProgram, card: Card, path: Path
) -> None:
    """Write a file ``.xml`` and its weights, ``.bin``, beside it.

    Args:
        program: The traced network.
        card: What the file is to say.
        path: Where to.

    Raises:
        UserError: OpenVINO is missing.
    """
    # Before the longer half.
    need_package(f'a file {path.suffix}', 'openvino')
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder, 'model.onnx')
        write_onnx(program, card, onnx)
        convert_onnx(onnx, card, path)


def convert_onnx(onnx: Path, card: Card, path: Path) -> None:
    """Make OpenVINO's files of an ONNX file.

    Args:
        onnx: The file.
        card: What the new ones are to say.
        path: Where to, ending in ``.xml``.

    Raises:
        UserError: OpenVINO is missing.
    """
    openvino = need_package(f'a file {path.suffix}', 'openvino')
    network = openvino.convert_model(str(onnx))
    network.set_rt_info(card.to_json(), KEY)
    openvino.save_model(network, str(path), compress_to_fp16=False)


WRITERS: dict[str, Callable] = {
    '.onnx': write_onnx,
    '.pt2': write_program,
    '.xml': write_openvino,
}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what torch's exporter tells its developers to itself."""
    loggers = [logging.getLogger(name) for name in ('torch', 'onnxscript')]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
