# Copyright (c) mmseg_attn contributors.
"""What the converters of the authors' checkpoints share."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine.checkpoint import load_checkpoint, weights_of
from ..errors import UserError
from ..files import whole

ABN_EPS = 1e-5


@dataclass
class Report:
    """What became of each weight.

    Attributes:
        read: Weights in the file.
        left_out: Name -> why it is not in the result.
        compared: Largest difference between the result's output and that of
            the authors' formulas, relative to the largest output.
        notes: What a config needs for the result.
    """

    read: int
    left_out: dict[str, str] = field(default_factory=dict)
    compared: float | None = None
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f'{self.read} weights read, {self.read - len(self.left_out)} '
            f'used, {len(self.left_out)} left out'
        ]
        lines += [f'  {name}: {why}' for name, why in self.left_out.items()]
        if self.compared is not None:
            lines.append(
                "output compared with the authors' formulas: differs by "
                f'{self.compared:.1e} of its largest value'
            )
        return '\n'.join(lines + self.notes)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint, without wrappers' prefixes.

    Args:
        path: A file that torch.save wrote.

    Returns:
        Name -> weight.

    Raises:
        UserError: As of :func:`load_checkpoint`.
    """
    weights = weights_of(load_checkpoint(path))
    return {
        re.sub(r'^module\.', '', key): value
        for key, value in weights.items()
        if isinstance(value, Tensor)
    }


def plain_norms(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn In-Place ABN, which scales by |weight| + 1e-5, into batch norm.

    Args:
        weights: A state dict.

    Returns:
        With norms' weights changed: those that have a running mean beside
        them.
    """
    return {
        name: value.abs() + ABN_EPS
        if name.removesuffix('weight') + 'running_mean' in weights
        and name.endswith('.weight')
        else value
        for name, value in weights.items()
    }


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest value.

    Raises:
        UserError: It is more than rounding explains.
    """
    found = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if not found < 1e-3:
        raise UserError(
            f"the converted weights do not give the authors' output (it "
            f'differs by {found:.1e} of its largest value): is the file of '
            'another variant? Nothing was written.'
        )
    return found


def linear_attention_formula(
    weights: dict[str, Tensor], x: Tensor, feature_map: str
) -> Tensor:
    """Linear attention of positions as its paper has it, dense.

    Args:
        weights: Weights of the official module, by its names.
        x: (1, C, H, W).
        feature_map: ``'taylor'``, of the Linear Attention Mechanism, or
            ``'softplus'``, MANet's kernel attention.

    Returns:
        ``x + gamma * attention(x)``.
    """
    query, key, value = (
        F.conv2d(
            x, weights[f'{name}_conv.weight'], weights[f'{name}_conv.bias']
        ).flatten(2)[0]
        for name in ('query', 'key', 'value')
    )
    if feature_map == 'softplus':
        zero = torch.zeros_like(query)
        query, key = (torch.logaddexp(v, zero) for v in (query, key))
        pairs = query.T @ key
    else:
        query, key = (v / v.norm(dim=0) for v in (query, key))
        pairs = 1 + query.T @ key
    total = pairs.sum(1) + 1e-6 * query.sum(0)
    return x + weights['gamma'] * (value @ pairs.T / total).view_as(x)


def convert_file(
    source: Path,
    out: Path,
    convert: Callable[[dict[str, Tensor]], tuple[dict[str, Tensor], Report]],
    read: Callable[[Path], dict[str, Tensor]] = read_weights,
) -> None:
    """Read, convert, write and report.

    Args:
        source: The authors' checkpoint.
        out: Checkpoint to write.
        convert: Weights -> converted weights and the report.
        read: Path -> weights.

    Raises:
        UserError: The file to write exists, or what the others raise.
    """
    if out.exists():
        raise UserError(f'{out} exists; give another name')
    converted, report = convert(read(source))
    with whole(out) as partial:
        torch.save({'state_dict': converted, 'meta': {}}, partial)
    print(report)
    print(f'{out}: {len(converted)} tensors')
