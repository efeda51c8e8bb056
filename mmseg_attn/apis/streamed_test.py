# Copyright (c) mmseg_attn contributors.
"""Test a segmentor in windows without the logits of whole pictures."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..streaming import Picture, segment_rows
from .predictors import Segmenter
from .window_network import WindowNetwork, why_not

# Bytes that the logits of a picture may take on a CPU; on a GPU it is a sixth
# of the memory, since windows that stream are put together by the CPU.
LARGE = 2**28


def stream_test(model: nn.Module, cfg: Config) -> None:
    """Let the windows of large pictures stream through a segmentor's test.

    Their class maps are those of MMSegmentation's ``slide_inference``, which
    holds the logits of a whole picture; they come without logits.

    Args:
        model: A segmentor in its test. It is changed, unless it is tested
            whole or in its own way.
        cfg: Its config.
    """
    model = model.module if is_model_wrapper(model) else model
    if (
        not isinstance(model, EncoderDecoder)
        or model.test_cfg.get('mode') != 'slide'
    ):
        return
    model.cfg = cfg
    predictor = Segmenter(model)
    if why_not(predictor):
        return
    network = WindowNetwork(predictor)
    whole, classes = model.test_step, model.out_channels

    def test_step(data: dict) -> Sequence[SegDataSample]:
        pictures, samples = data['inputs'], data['data_samples']
        if not any(_is_large(x, classes, model) for x in pictures) or any(
            tuple(x.shape[1:]) != tuple(sample.ori_shape)
            for x, sample in zip(pictures, samples, strict=True)
        ):
            return whole(data)
        for x, sample in zip(pictures, samples, strict=True):
            bands = segment_rows(
                Picture(x.permute(1, 2, 0).numpy()),
                network,
                network.windows,
                dtype=np.uint16 if classes > 255 else np.uint8,
                threshold=network.threshold,
            )
            labels = np.concatenate(list(bands))[None].astype(np.int64)
            sample.pred_sem_seg = PixelData(data=torch.from_numpy(labels))
        return samples

    model.test_step = test_step


def _is_large(picture: Tensor, classes: int, model: nn.Module) -> bool:
    device = next(model.parameters()).device
    most = LARGE
    if device.type == 'cuda':
        most = torch.cuda.get_device_properties(device).total_memory // 6
    return 4 * classes * picture[0].numel() > most
