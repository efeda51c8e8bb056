# Copyright (c) mmseg_attn contributors.
"""Convolution with a large kernel as a layer, to compare attention with."""

from __future__ import annotations

from torch import Tensor, nn

from .arguments import check_counts, given
from .building import MODELS, BaseModule, Sequential
from .projected import check_map, shown


@MODELS.register_module()
class GlobalConvolution(BaseModule):
    """A large kernel k x k as two pairs of narrow ones, k x 1 and 1 x k.

    One pair convolves along columns and then rows, the other along rows and
    then columns; their sum is the output. No norm, activation or residual, as
    in GCN. There a map becomes as many channels as there are classes; here,
    between other convolutions, it keeps its own.

    Args:
        in_channels: Channels C of the map, and of the output.
        mid_channels: Channels between the two convolutions of a pair. None
            means C.
        kernel_size: Length k of the kernels, odd. GCN's is 15; what others
            take who compare with it, CCNet among them, is not known.
        init_cfg: Initialization, as in mmengine.

    Examples:
        >>> import torch
        >>> from mmseg_attn.layers import GlobalConvolution
        >>> layer = GlobalConvolution(64)
        >>> layer(torch.randn(1, 64, 32, 48)).shape
        torch.Size([1, 64, 32, 48])

    Large Kernel Matters, https://arxiv.org/abs/1703.02719, section 3.1.
    """

    _abbr_ = 'global_convolution'

    def __init__(
        self,
        in_channels: int,
        mid_channels: int | None = None,
        kernel_size: int = 15,
        *,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        name = type(self).__name__
        check_counts(
            name,
            in_channels=in_channels,
            kernel_size=kernel_size,
            **given(mid_channels=mid_channels),
        )
        if kernel_size % 2 != 1:
            raise ValueError(
                f'{name}: kernel_size must be odd, got {kernel_size}'
            )
        self.in_channels = in_channels
        self.mid_channels = mid_channels or in_channels
        self.kernel_size = kernel_size
        self.columns_rows = self._pair((kernel_size, 1), (1, kernel_size))
        self.rows_columns = self._pair((1, kernel_size), (kernel_size, 1))

    def _pair(self, first, second):
        return Sequential(
            nn.Conv2d(
                self.in_channels, self.mid_channels, first, padding='same'
            ),
            nn.Conv2d(
                self.mid_channels, self.in_channels, second, padding='same'
            ),
        )

    def extra_repr(self) -> str:
        """What a printed layer says beside its convolutions."""
        return shown(
            in_channels=self.in_channels,
            mid_channels=self.mid_channels,
            kernel_size=self.kernel_size,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (B, C, H, W), of any size.

        Returns:
            A map of the same shape.

        Raises:
            ValueError: The rank or number of channels does not fit.
        """
        check_map(self, x)
        return self.columns_rows(x) + self.rows_columns(x)
