# Copyright (c) mmseg_attn contributors.
import numpy as np
import pytest
import torch

from mmseg_attn.layers import GlobalConvolution


def along(x, conv, axis):
    """Sums over a line of the map, taken one by one; zeros lie outside."""
    weight = conv.weight.detach().squeeze(3 - axis).numpy()
    reach = weight.shape[2] // 2
    out = np.zeros((weight.shape[0], *x.shape[1:]))
    for position in np.ndindex(x.shape[1:]):
        for step in range(-reach, reach + 1):
            at = list(position)
            at[axis] += step
            if 0 <= at[axis] < x.shape[1 + axis]:
                seen = x[(slice(None), *at)]
                out[(slice(None), *position)] += (
                    weight[:, :, step + reach] @ seen
                )
    return out + conv.bias.detach().numpy()[:, None, None]


def test_equals_the_sum_of_both_orders():
    torch.manual_seed(0)
    layer = GlobalConvolution(3, 4, 5).double()
    assert {pair[0].out_channels for pair in layer.children()} == {4}
    x = torch.randn(1, 3, 4, 9, dtype=torch.float64)
    expected = 0
    for pair, axes in (
        (layer.columns_rows, (0, 1)),
        (layer.rows_columns, (1, 0)),
    ):
        part = x[0].numpy()
        for conv, axis in zip(pair, axes, strict=True):
            part = along(part, conv, axis)
        expected = expected + part
    found = layer(x)[0].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_reaches_as_far_as_its_kernel():
    """Every position of the square of 15 x 15, and none beyond it."""
    layer = GlobalConvolution(1).double()
    x = torch.randn(1, 1, 19, 21, dtype=torch.float64, requires_grad=True)
    layer(x)[0, 0, 9, 10].backward()
    seen = torch.zeros(19, 21, dtype=torch.bool)
    seen[2:17, 3:18] = True
    assert torch.equal(x.grad[0, 0] != 0, seen)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match='kernel_size must be odd, got 4'):
        GlobalConvolution(3, kernel_size=4)
