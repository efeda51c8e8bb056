# Copyright (c) mmseg_attn contributors.
"""The U-Net of segmentation_models.pytorch, as docs/reuse.md calls it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of its resnet18: channels of the picture and of the maps of the encoder.
CHANNELS = (3, 64, 64, 128, 256, 512)


def conv(width: int, out: int, stride: int = 1) -> nn.Sequential:
    """Convolution, norm and activation."""
    return nn.Sequential(
        nn.Conv2d(width, out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    )


class Block(nn.Module):
    """A step of the decoder; both attentions are nothing by default."""

    def __init__(self, width: int, skipped: int, out: int):
        super().__init__()
        self.conv1 = conv(width + skipped, out)
        self.attention1 = nn.Identity()
        self.conv2 = conv(out, out)
        self.attention2 = nn.Identity()

    def forward(self, x: Tensor, skipped: Tensor | None) -> Tensor:
        """Enlarge, join, convolve and attend."""
        x = F.interpolate(x, scale_factor=2)
        if skipped is not None:
            x = self.attention1(torch.cat([x, skipped], 1))
        return self.attention2(self.conv2(self.conv1(x)))


class Decoder(nn.Module):
    """The steps of the decoder."""

    def __init__(self, encoded: list[int], widths: tuple[int, ...]):
        super().__init__()
        skipped = [*encoded[1:], 0]
        self.blocks = nn.ModuleList(
            Block(i, s, o)
            for i, s, o in zip(
                (encoded[0], *widths[:-1]), skipped, widths, strict=True
            )
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """From the smallest map to a large one."""
        x = maps[0]
        for block, skipped in zip(self.blocks, [*maps[1:], None], strict=True):
            x = block(x, skipped)
        return x


class Unet(nn.Module):
    """Encoder, decoder and classifier with random weights."""

    def __init__(
        self,
        encoder_name: str,
        *,
        encoder_depth: int,
        encoder_weights: None,
        decoder_channels: tuple[int, ...],
        classes: int,
    ):
        super().__init__()
        assert encoder_name == 'resnet18' and encoder_weights is None
        widths = CHANNELS[: encoder_depth + 1]
        self.encoder = nn.ModuleList(
            conv(i, o, 2) for i, o in zip(widths, widths[1:], strict=False)
        )
        self.decoder = Decoder([*widths[:0:-1]], decoder_channels)
        self.segmentation_head = nn.Conv2d(
            decoder_channels[-1], classes, 3, 1, 1
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the size of the picture."""
        maps = []
        for stage in self.encoder:
            x = stage(x)
            maps.insert(0, x)
        return self.segmentation_head(self.decoder(maps))
