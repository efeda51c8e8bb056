# Copyright (c) mmseg_attn contributors.
"""What loading the weights of official code shares."""

from torch import Tensor


def fold_biases(state_dict: dict[str, Tensor], prefix: str = '') -> None:
    """Put biases of convolutions in front of batch norms into the means.

    Our convolutions have none there, since the norm takes a constant away.

    Args:
        state_dict: With the names of mmcv's ``ConvModule``; changed in place.
        prefix: How the names begin.
    """
    for name in [k for k in state_dict if k.startswith(prefix)]:
        mean = f'{name.removesuffix(".conv.bias")}.bn.running_mean'
        if name.endswith('.conv.bias') and mean in state_dict:
            bias = state_dict.pop(name)
            state_dict[mean] = state_dict[mean] - bias
