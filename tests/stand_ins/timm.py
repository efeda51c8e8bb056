# Copyright (c) mmseg_attn contributors.
"""timm's feature extractor, as docs/reuse.md calls it, where timm is not."""

from torch import Tensor, nn

# Of its resnet18: channels and reduction of each of the five maps.
CHANNELS = (64, 64, 128, 256, 512)


class FeatureInfo:
    """What is known of the maps that are given."""

    def __init__(self, indices: tuple[int, ...]):
        self.indices = indices

    def channels(self) -> list[int]:
        """Channels of each."""
        return [CHANNELS[i] for i in self.indices]


class Extractor(nn.Module):
    """A convolution a stage."""

    def __init__(self, indices: tuple[int, ...]):
        super().__init__()
        self.feature_info = FeatureInfo(indices)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU()
            )
            for i, o in zip((3, *CHANNELS[:-1]), CHANNELS, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps, from the largest to the smallest."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [maps[i] for i in self.feature_info.indices]


def create_model(
    name: str, *, features_only: bool, out_indices: tuple[int, ...]
) -> Extractor:
    """Make an extractor with random weights."""
    assert name == 'resnet18' and features_only
    return Extractor(out_indices)
