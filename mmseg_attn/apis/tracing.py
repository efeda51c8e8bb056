# Copyright (c) mmseg_attn contributors.
"""Trace where pixels look through a model's attention."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..inference.samples import Sample
from ..visualization.attention import AttentionMaps
from .host_layers import tracer_of
from .predictors import Segmenter
from .tasks import SEGMENTOR, check_model, check_task


def attention_maps(
    model: nn.Module,
    image: str | Path | np.ndarray,
    pixels: Sequence[tuple[int, int]],
    layers: str = '',
) -> AttentionMaps:
    """Trace where pixels of a picture look through a model's attention.

    The picture is taken whole, as the test pipeline gives it, also where the
    model would slide windows over it. Every run of a layer that has
    ``trace_attention``, or is mmcv's ``NonLocal2d``, counts as one loop: after
    r loops a pixel sees what loop r gathers from loop r - 1, and so on back to
    the input of the first. This is the attention alone: the residual paths
    around the loops, their gain gamma, gates of channels, and convolutions
    between different layers are left out.

    Args:
        model: A segmentor with ``cfg`` set, as from
            :func:`~mmseg_attn.apis.load_model`.
        image: Path, or the picture as (H, W, 3) uint8 in BGR order.
        pixels: (x, y) of each pixel, counted from the upper left corner of the
            picture.
        layers: Use only layers whose name in the model begins so, such as
            ``'decode_head'``. By default all.

    Returns:
        The weights of all pixels after 1, 2, … loops.

    Raises:
        UserError: If a pixel lies outside, or no layer can be traced, or
            layers work side by side.
    """
    pixels = _whole_pairs(pixels)
    recording = record(model, image, layers)
    height, width = recording.sample.picture.shape[:2]
    for x, y in pixels:
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f'Pixel ({x}, {y}) lies outside the picture: x must be '
                f'0 to {width - 1} and y 0 to {height - 1}.'
            )
    maps = []
    for loop in range(len(recording.calls)):
        rows, columns = recording.grid(loop)
        maps.append(
            recording.maps(loop, [(rows[y], columns[x]) for x, y in pixels])
        )
    return AttentionMaps(
        np.stack(maps, 1),
        *recording.grid(0),
        layers=recording.layers,
        notes=recording.notes,
    )


@dataclass(frozen=True, eq=False)
class Recording:
    """What the attention layers of a model took in of one picture.

    Attributes:
        sample: The picture.
        calls: Each run of a layer with its input (1, C, h, w), in their order.
        layers: What the layer of each run is called, such as ``'layer3.2'``.
        notes: What one has to know of the layers to read their maps.
        size: Height and width of the network's input.
        padding: How much of it is padding: left, right, top, bottom.
        align: The ``align_corners`` with which the logits are enlarged.
    """

    sample: Sample
    calls: list[tuple[nn.Module, Tensor]]
    layers: tuple[str, ...]
    notes: tuple[str, ...]
    size: tuple[int, int]
    padding: tuple[int, int, int, int]
    align: bool

    def shape(self, loop: int) -> tuple[int, int]:
        """Rows and columns of cells that the run of a layer sees.

        Args:
            loop: Number of the run, from 0.
        """
        return tuple(self.calls[loop][1].shape[2:])

    def grid(self, loop: int) -> tuple[np.ndarray, np.ndarray]:
        """The cell of each row, and of each column, of the picture.

        Args:
            loop: Number of the run of a layer, from 0.
        """
        height, width = self.sample.picture.shape[:2]
        left, right, top, bottom = self.padding
        rows, columns = self.shape(loop)
        return (
            cells_of(height, self.size[0], (top, bottom), rows, self.align),
            cells_of(width, self.size[1], (left, right), columns, self.align),
        )

    def maps(self, loop: int, cells: Sequence[tuple[int, int]]) -> np.ndarray:
        """Where cells look, back to the input of the first run.

        Args:
            loop: Number of the run whose output cells are meant, from 0.
            cells: Row and column of each cell.

        Returns:
            (cells, h, w) float32, how much each cell of the first run's input
            counts.

        Raises:
            UserError: Some weights are negative.
        """
        maps = trace(self.calls[: loop + 1], cells)
        if maps.min() < -1e-4 * maps.max():
            raise UserError(
                'The attention has negative weights, as EfficientAttention '
                "has with normalization='scaling': they are no shares to be "
                'shown.'
            )
        return maps.clamp(min=0).float().cpu().numpy()


def record(
    model: nn.Module, image: str | Path | np.ndarray, layers: str = ''
) -> Recording:
    """Run a model on a whole picture and keep what its attention takes in.

    Args:
        model: A segmentor with ``cfg`` set.
        image: Path, or the picture as (H, W, 3) uint8 in BGR order.
        layers: Begin of the names of those to be used.

    Returns:
        The runs of the layers.

    Raises:
        UserError: No layer can be traced, or layers work side by side.
    """
    check_model(model)
    check_task(model.cfg, SEGMENTOR)
    sample = Segmenter(model).prepare(image)
    found = _layers(model, layers)
    calls, size, meta = _record(model, sample, found)
    shown = _shown(found)
    notes = (getattr(module, 'trace_note', '') for module, _ in calls)
    return Recording(
        sample,
        calls,
        layers=tuple(shown[module] for module, _ in calls),
        notes=tuple(filter(None, dict.fromkeys(notes))),
        size=size,
        padding=meta.get(
            'img_padding_size', meta.get('padding_size', (0, 0, 0, 0))
        ),
        align=model.align_corners,
    )


def _whole_pairs(pixels: Sequence) -> list[tuple[int, int]]:
    try:
        pairs = [tuple(map(operator.index, pair)) for pair in pixels]
    except TypeError:
        pairs = []
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise UserError(
            f'the pixels are {pixels!r}, expected a list of (x, y) in whole '
            'numbers, such as [(40, 30)].'
        )
    return pairs


@torch.no_grad()
def trace(
    calls: Sequence[tuple[nn.Module, Tensor]],
    cells: Sequence[tuple[int, ...]],
) -> Tensor:
    """Trace output cells of the last call back to the first call's input.

    Args:
        calls: Each layer with its input (1, C, *spatial), in the order of
            their run; one layer may occur many times. Sizes may differ between
            calls.
        cells: Index of each output cell.

    Returns:
        (cells, *spatial), how much each cell of the first input counts. The
        sum of each map is 1.
    """
    x = calls[-1][1]
    weight = x.new_zeros(1, len(cells), *x.shape[2:])
    for number, cell in enumerate(cells):
        weight[(0, number, *cell)] = 1
    for layer, x in reversed(calls):
        if weight.shape[2:] != x.shape[2:]:
            axes = tuple(range(2, weight.ndim))
            total = weight.sum(axes, keepdim=True)
            weight = nn.functional.interpolate(
                weight, size=x.shape[2:], mode='bilinear'
            )
            weight = weight * (total / weight.sum(axes, keepdim=True))
        weight = tracer_of(layer)(x, weight)
    return weight[0]


def has_maps(model: nn.Module) -> bool:
    """Tell whether a model has attention layers that can be traced.

    Args:
        model: The model.
    """
    return any(map(tracer_of, model.modules()))


def _layers(model: nn.Module, layers: str) -> dict[nn.Module, str]:
    """The layers that can be traced, with their names in the model."""
    found = {
        module: name
        for name, module in model.named_modules()
        if tracer_of(module) and name.startswith(layers)
    }
    if not found:
        where = f' whose name begins with {layers!r}' if layers else ''
        raise UserError(
            f'The model has no attention layer{where} that has a map: looked '
            'for modules with a method `trace_attention`, such as '
            'CrissCrossAttention in CCHead, in '
            f'{", ".join(n for n, _ in model.named_children())}.'
        )
    return found


def _shown(layers: dict[nn.Module, str]) -> dict[nn.Module, str]:
    """Call a layer put into a block of the backbone like the block."""
    short = {}
    for module, name in layers.items():
        first, *middle, _ = name.split('.')
        inside = first == 'backbone' and middle
        short[module] = '.'.join(middle) if inside else name
    names = list(short.values())
    return {
        module: layers[module] if names.count(name) > 1 else name
        for module, name in short.items()
    }


def _record(
    model: nn.Module, sample: Sample, found: dict[nn.Module, str]
) -> tuple[list[tuple[nn.Module, Tensor]], tuple[int, int], dict]:
    """Run the model on the whole picture and keep the layers' inputs."""
    calls, marks = [], []

    def keep(module, args):
        calls.append((module, args[0]))

    def mark(module, args, out):
        """Let the autograd graph tell what comes of this output."""
        marks.append(out.new_zeros((), requires_grad=True))
        return out + marks[-1]

    several = len(found) > 1
    hooks = [module.register_forward_pre_hook(keep) for module in found]
    if several:
        hooks += [module.register_forward_hook(mark) for module in found]
    parameters = [p for p in model.parameters() if p.requires_grad]
    data = dict(
        inputs=[sample.data['inputs']],
        data_samples=[sample.data['data_samples']],
    )
    try:
        for parameter in parameters:  # of which no graph is needed
            parameter.requires_grad_(False)
        data = model.data_preprocessor(data, False)
        with torch.set_grad_enabled(several):
            model(**data, mode='tensor')
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in parameters:
            parameter.requires_grad_()
    for module, x in calls:
        if x.ndim != 4:
            raise UserError(
                f'{type(module).__name__} attends over {x.ndim - 2} '
                'dimensions; maps can be shown of two.'
            )
    if not calls:
        raise UserError(
            f'None of the attention layers {", ".join(found.values())} ran.'
        )
    for index, marked in enumerate(marks[:-1]):
        (one, _), (other, x) = calls[index : index + 2]
        if not _depends(x, marked):
            raise UserError(
                f'{found[one]} and {found[other]} work side by side, not one '
                'after the other; choose one with --layers.'
            )
    calls = [(module, x.detach()) for module, x in calls]
    size = tuple(data['inputs'].shape[-2:])
    return calls, size, data['data_samples'][0].metainfo


def _depends(x: Tensor, leaf: Tensor) -> bool:
    """Whether x was computed from a leaf of the autograd graph."""
    seen, waiting = set(), [x.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if getattr(node, 'variable', None) is leaf:
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


def cells_of(
    length: int, size: int, padding: tuple[int, int], cells: int, align: bool
) -> np.ndarray:
    """Find the cell of each row of a picture, as the logits are enlarged.

    Args:
        length: Rows, or columns, of the picture.
        size: Those of the network's input.
        padding: How many of these are padding, before and behind.
        cells: Rows, or columns, of the map.
        align: The ``align_corners`` of the enlargement.

    Returns:
        (length,) indices of cells.
    """

    def scale(position, old, new):
        if align:
            return position * (new - 1) / max(old - 1, 1)
        return (position + 0.5) * new / old - 0.5

    inner = size - sum(padding)
    position = scale(np.arange(length), length, inner) + padding[0]
    cell = np.floor(scale(position, size, cells) + 0.5).astype(int)
    return cell.clip(0, cells - 1)
