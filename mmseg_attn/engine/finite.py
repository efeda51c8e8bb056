# Copyright (c) mmseg_attn contributors.
"""Find weights that are NaN or infinite."""

from collections.abc import Iterator

import torch

from ..errors import UserError

# Parts of a checkpoint that hold no weights of a model.
NO_WEIGHTS = ('optimizer', 'param_schedulers', 'message_hub', 'meta')


def not_finite(tensors: dict[str, torch.Tensor]) -> str | None:
    """Find the first tensor with a value that is NaN or infinite.

    Args:
        tensors: By name. Those of integers are passed over, and so are masks
            of 0 and -inf, which the encoders of texts keep beside weights.

    Returns:
        Its name and what it holds, such as ``'head.bias (2 of 19 nan)'``.
    """
    tensors = {
        name: torch.view_as_real(value) if value.is_complex() else value
        for name, value in tensors.items()
        if (value.is_floating_point() or value.is_complex())
        and not value.is_meta
        and value.numel()
    }
    # One pass that writes nothing, and one answer from a GPU: what is not
    # finite makes the sum so. What overflows only in the sum is looked at.
    sums = [
        value.detach().sum(dtype=torch.float32) for value in tensors.values()
    ]
    if not sums:
        return None
    finite = torch.stack([each.to(sums[0].device) for each in sums])
    for name, good in zip(tensors, finite.isfinite().tolist(), strict=True):
        if good:
            continue
        value = tensors[name].detach().float()
        bad = value[~value.isfinite()]
        if not len(bad):
            continue
        kinds = {str(each) for each in bad[:1000].tolist()}
        if kinds == {'-inf'} and not value[value.isfinite()].any():
            continue
        return (
            f'{name} ({len(bad)} of {value.numel()} '
            f'{" and ".join(sorted(kinds))})'
        )
    return None


def check_finite(checkpoint: object, name: str) -> None:
    """Refuse a checkpoint whose weights are not all finite.

    Args:
        checkpoint: As torch.load returns it. What is no dict is passed over.
        name: Its name in the message.

    Raises:
        UserError: It names the first such weight.
    """
    found = not_finite(dict(_tensors(checkpoint)))
    if found:
        raise UserError(
            f'checkpoint {name} holds weights that are not finite, the first '
            f'is {found.removeprefix("state_dict.")}: its training went '
            'wrong. Take an earlier one.'
        )


def _tensors(
    content: object, prefix: str = ''
) -> Iterator[tuple[str, torch.Tensor]]:
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if isinstance(value, torch.Tensor):
            yield f'{prefix}{key}', value
        elif prefix or key not in NO_WEIGHTS:
            # The first level says whose weights these are.
            yield from _tensors(value, f'{prefix}{key}.')
