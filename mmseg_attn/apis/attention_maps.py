# Copyright (c) mmseg_attn contributors.
"""``python -m mmseg_attn attention``: show where a pixel looks."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from mmengine.config import Config, DictAction
from torch import Tensor, nn

from ..configs import find_config
from ..errors import UserError
from ..files import whole
from ..progress import quiet_hosts

with quiet_hosts():
    from .inference import Sample, Segmenter, check_segmentor, load_model

FORMATS = ('.png', '.jpg', '.pdf', '.svg')


@dataclass(frozen=True)
class AttentionMaps:
    """Where pixels look, on the grid of cells that the attention sees.

    Attributes:
        cells (np.ndarray): (pixels, loops, h, w) float32. Entry
            ``[p, r - 1]`` says how much each cell of the first loop's input
            counts for pixel p after r loops; it sums to 1, or to less where
            zeros beside the map take part. An attention that runs once is
            one loop.
        rows (np.ndarray): (H,) The row of cells of each row of the picture.
        columns (np.ndarray): (W,) The same for columns.
    """

    cells: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def on_picture(self) -> np.ndarray:
        """Spread the cells over the picture.

        Returns:
            np.ndarray: (pixels, loops, H, W), each pixel with the weight of
            the cell that it lies in: nothing is smoothed.
        """
        return self.cells[..., self.rows[:, None], self.columns]


def attention_maps(
    model: nn.Module,
    image: str | Path | np.ndarray,
    pixels: Sequence[tuple[int, int]],
    layers: str = '',
) -> AttentionMaps:
    """Trace where pixels of a picture look through a model's attention.

    The picture is taken whole, as the test pipeline gives it, also where the
    model would slide windows over it. Every run of a layer that has
    ``trace_attention`` counts as one loop: after r loops a pixel sees what
    loop r gathers from loop r - 1, and so on back to the input of the first.
    This is the attention alone: the residual paths around the loops, their
    gain gamma, gates of channels, and convolutions between different layers
    are left out.

    Args:
        model (nn.Module): A segmentor with ``cfg`` set, as from
            :func:`~mmseg_attn.apis.inference.load_model`.
        image (str | Path | np.ndarray): Path, or the picture as (H, W, 3)
            uint8 in BGR order.
        pixels (Sequence[tuple[int, int]]): (x, y) of each pixel, counted
            from the upper left corner of the picture.
        layers (str): Use only layers whose name in the model begins so, such
            as ``'decode_head'``. By default all.

    Returns:
        AttentionMaps: The weights of all pixels after 1, 2, … loops.

    Raises:
        UserError: If a pixel lies outside, or no layer can be traced, or
            layers work side by side.
    """
    sample = Segmenter(model).prepare(image)
    height, width = sample.picture.shape[:2]
    for x, y in pixels:
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f'Pixel ({x}, {y}) lies outside the picture: x must be '
                f'0 to {width - 1} and y 0 to {height - 1}.'
            )
    calls, size, meta = _record(model, sample, layers)
    align = model.align_corners

    def grid(shape: torch.Size) -> tuple[np.ndarray, np.ndarray]:
        left, right, top, bottom = meta.get(
            'img_padding_size', meta.get('padding_size', (0, 0, 0, 0))
        )
        return (
            _cells(height, size[0], (top, bottom), shape[0], align),
            _cells(width, size[1], (left, right), shape[1], align),
        )

    maps = []
    for x, y in pixels:
        for loops in range(1, len(calls) + 1):
            shape = calls[loops - 1][1].shape[2:]
            rows, columns = grid(shape)
            maps.append(trace(calls[:loops], (rows[y], columns[x])))
    cells = torch.stack(maps).unflatten(0, (len(pixels), len(calls)))
    if cells.min() < -1e-4 * cells.max():
        raise UserError(
            'The attention has negative weights, as EfficientAttention has '
            "with normalization='scaling': they are no shares to be shown."
        )
    cells = cells.clamp(min=0).float().cpu().numpy()
    return AttentionMaps(cells, *grid(cells.shape[2:]))


@torch.no_grad()
def trace(
    calls: Sequence[tuple[nn.Module, Tensor]], cell: tuple[int, ...]
) -> Tensor:
    """Trace one output cell of the last call back to the first call's input.

    Args:
        calls (Sequence[tuple[nn.Module, Tensor]]): Each layer with its input
            (1, C, *spatial), in the order of their run; one layer may
            occur many times. Sizes may differ between calls.
        cell (tuple[int, ...]): Index of the output cell.

    Returns:
        Tensor: (*spatial), how much each cell of the first input counts.
        The sum is 1.
    """
    weight = torch.zeros_like(calls[-1][1][:, 0])
    weight[(0, *cell)] = 1
    for layer, x in reversed(calls):
        if weight.shape[1:] != x.shape[2:]:
            total = weight.sum()
            weight = nn.functional.interpolate(
                weight[None], size=x.shape[2:], mode='bilinear'
            )[0]
            weight = weight * (total / weight.sum())
        weight = layer.trace_attention(x, weight)
    return weight[0]


def _record(
    model: nn.Module, sample: Sample, layers: str
) -> tuple[list[tuple[nn.Module, Tensor]], tuple[int, int], dict]:
    """Run the model on the whole picture and keep the layers' inputs."""
    found = {
        module: name
        for name, module in model.named_modules()
        if hasattr(module, 'trace_attention') and name.startswith(layers)
    }
    if not found:
        where = f' whose name begins with {layers!r}' if layers else ''
        raise UserError(
            f'The model has no attention layer{where} that has a map: looked '
            'for modules with a method `trace_attention`, such as '
            'CrissCrossAttention in CCHead, in '
            f'{", ".join(n for n, _ in model.named_children())}.'
        )
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


def _cells(
    length: int, size: int, padding: tuple[int, int], cells: int, align: bool
) -> np.ndarray:
    """The cell of each picture row, as the logits are enlarged to it."""

    def scale(position, old, new):
        if align:
            return position * (new - 1) / max(old - 1, 1)
        return (position + 0.5) * new / old - 0.5

    inner = size - sum(padding)
    position = scale(np.arange(length), length, inner) + padding[0]
    cell = np.floor(scale(position, size, cells) + 0.5).astype(int)
    return cell.clip(0, cells - 1)


def draw(
    picture: np.ndarray,
    pixels: Sequence[tuple[int, int]],
    maps: AttentionMaps,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw a row for each pixel: the picture, then one map for each loop.

    Every map has its own scale, since a second loop spreads the same sum of
    weights over far more cells than the first.

    Args:
        picture (np.ndarray): (H, W, 3) uint8, BGR.
        pixels (Sequence[tuple[int, int]]): (x, y) of each.
        maps (AttentionMaps): As traced for these pixels.
        names (Sequence[str] | None): What to call each pixel.

    Returns:
        Figure: To be saved.
    """
    shown = maps.on_picture()
    loops = shown.shape[1]
    height, width = picture.shape[:2]
    side = 3.4 * min(height / width, 2)
    size = (3.9 * (loops + 1), (side + 0.9) * len(pixels))
    figure = Figure(size, dpi=150, layout='constrained')
    axes = figure.subplots(len(pixels), loops + 1, squeeze=False)
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    for row, (x, y) in enumerate(pixels):
        for column, axis in enumerate(axes[row]):
            axis.set_axis_off()
            axis.plot(x, y, 'o', ms=9, mec='black', mfc='none', mew=3.5)
            axis.plot(x, y, 'o', ms=9, mec='white', mfc='none', mew=1.8)
            if column == 0:
                axis.imshow(picture[..., ::-1])
                name = f': {names[row]}' if names else ''
                axis.set_title(f'pixel ({x}, {y}){name}', fontsize=11)
                continue
            cells = maps.cells[row, column - 1]
            axis.imshow(grey, 'gray')
            heat = axis.imshow(
                100 * shown[row, column - 1],
                'inferno',
                # The square root lets the many small weights be seen too.
                norm=PowerNorm(0.5, 0, 100 * cells.max()),
                alpha=0.65,
                interpolation='nearest',
            )
            reach = f'{_reach(cells)} of {cells.size} cells hold 90 %'
            after = _after(column, loops)
            axis.set_title(f'{after}: {reach}', fontsize=11)
            bar = figure.colorbar(heat, ax=axis, fraction=0.04, pad=0.02)
            bar.set_label(f'% per cell (sum {100 * cells.sum():.4g} %)')
            bar.solids.set_alpha(1)
    return figure


def _reach(cells: np.ndarray) -> int:
    """How few cells hold 90 % of the weight."""
    held = np.cumsum(np.sort(cells, axis=None)[::-1])
    return int(np.searchsorted(held, 0.9 * held[-1])) + 1


def _after(loop: int, loops: int) -> str:
    if loops == 1:
        return 'attention'
    return f'after {loop} loop{"s" if loop > 1 else ""}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('config', help='config file, or name of a packaged config')
    add('checkpoint', help='trained weights')
    add('picture', type=Path)
    add(
        '--pixel',
        type=int,
        nargs=2,
        metavar=('X', 'Y'),
        action='append',
        required=True,
        dest='pixels',
        help='counted from the upper left corner; may be given many times',
    )
    add(
        '-o',
        '--out',
        type=Path,
        default=Path('attention.png'),
        help=f'figure, {" ".join(FORMATS)} (default: %(default)s)',
    )
    add(
        '--layers',
        default='',
        metavar='NAME',
        help='only layers whose name in the model begins so, such as '
        'decode_head (default: all)',
    )
    add('--overwrite', action='store_true', help='replace an earlier figure')
    add('--device', help='such as cpu or cuda:0 (default: the best there is)')
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='change settings of the config, as key=value',
    )


def main(args: argparse.Namespace) -> None:
    try:
        with quiet_hosts():
            _show(args)
    except (UserError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error


def _show(args: argparse.Namespace) -> None:
    if args.out.suffix.lower() not in FORMATS:
        raise UserError(
            f'--out {args.out} must end in one of {" ".join(FORMATS)}.'
        )
    if not args.picture.is_file():
        raise UserError(f'No picture {args.picture}.')
    if args.out.exists() and args.out.samefile(args.picture):
        raise UserError(f'--out {args.out} is the picture itself.')
    if args.out.exists() and not args.overwrite:
        raise UserError(f'{args.out} exists; replace it with --overwrite.')
    config = Config.fromfile(find_config(args.config))
    check_segmentor(config)
    config.merge_from_dict(args.cfg_options or {})
    model = load_model(config, args.checkpoint, device=args.device)
    maps = attention_maps(model, args.picture, args.pixels, args.layers)
    segmenter = Segmenter(model)
    sample = segmenter.prepare(args.picture)
    (mask,) = segmenter([sample])
    classes = model.dataset_meta['classes']
    names = [classes[mask[y, x]] for x, y in args.pixels]
    figure = draw(sample.picture, args.pixels, maps, names)
    with whole(args.out) as path:
        figure.savefig(path)
    for (x, y), name, cells in zip(
        args.pixels, names, maps.cells, strict=True
    ):
        for loop, weights in enumerate(cells, start=1):
            after = _after(loop, len(cells))
            print(
                f'pixel ({x}, {y}), {name}, {after}: 90 % of the '
                f'weight on {_reach(weights)} of {weights.size} cells, sum '
                f'{weights.sum():.4f}'
            )
    print(f'Figure: {args.out}')
