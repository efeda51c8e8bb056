# Copyright (c) mmseg_attn contributors.
"""A segmentor as a function from windows to logits, and where it is one."""

import mmcv
import numpy as np
import torch
from mmcv.transforms import Resize
from mmseg.datasets.transforms import PackSegInputs
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import nn

from ..datasets.pictures import LoadPicture
from ..streaming import Windows
from .predictors import Predictor, Segmenter


class WindowNetwork:
    """A segmentor as a function of windows: the host's ``slide_inference``.

    Args:
        predictor: What reads pictures for the model and runs it.
        blend: How windows that overlap are put together.

    Attributes:
        reason: Why pictures cannot stream; None where they can.
        advice: What to do then with a picture that is too large.
        windows: How a picture is cut.
        threshold: Least probability of the foreground, of one logit.
        depth: Bits that 16-bit pictures use, as the loader has it.
    """

    def __init__(self, predictor: Predictor, blend: str = 'average') -> None:
        self.predictor, self.model = predictor, predictor.model
        config = self.model.test_cfg
        slides = config.get('mode') == 'slide'
        self.reason = why_not(predictor)
        whole = 'leave that out, or cut the picture into tiles.'
        self.advice = whole if slides else 'add --slide.'
        self.windows = Windows(
            tuple(config.crop_size) if slides else (1, 1),
            tuple(config.stride) if slides else (1, 1),
            blend,
            divisor_of(self.model),
        )
        self.threshold = threshold_of(self.model)
        self.depth = getattr(predictor.load, 'depth', None)

    @torch.inference_mode()
    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Predict windows of one size.

        Args:
            windows: (N, height, width, 3) uint8, BGR.

        Returns:
            (N, classes, height, width) float32.
        """
        height, width = windows.shape[1:3]
        # In the order in which the host has a picture: another one may choose
        # other sums, whose rounding differs.
        pixels = np.ascontiguousarray(windows.transpose(0, 3, 1, 2))
        data = dict(
            inputs=list(torch.from_numpy(pixels)),
            data_samples=[SegDataSample() for _ in pixels],
        )
        inputs = self.model.data_preprocessor(data)['inputs']
        metas = [dict(img_shape=inputs.shape[2:]) for _ in inputs]
        logits = self.model.encode_decode(inputs, metas)
        return logits[..., :height, :width].float().cpu().numpy()

    def resized(self, height: int, width: int) -> str | None:
        """Say to which size the test pipeline resizes a picture.

        Args:
            height: The picture's, in pixels.
            width: Likewise.

        Returns:
            Width x height; None where it keeps the size.
        """
        size = width, height
        for step in self.predictor.steps.transforms:
            if not isinstance(step, Resize):
                continue
            factors = step.scale_factor or ()
            size = step.scale or tuple(
                int(side * factor + 0.5)
                for side, factor in zip(size, factors, strict=True)
            )
            if step.keep_ratio:
                size = mmcv.rescale_size((width, height), size)
        return None if size == (width, height) else f'{size[0]} x {size[1]}'


def why_not(predictor: Predictor) -> str | None:
    """Say why the windows of a predictor's pictures cannot stream.

    Args:
        predictor: What runs the model.

    Returns:
        The reason, to stand behind "because"; None where they can.
    """
    model = predictor.model
    if type(predictor) is not Segmenter or not isinstance(
        model, EncoderDecoder
    ):
        return 'the model is no plain segmentor of pictures'
    if model.test_cfg.get('mode') != 'slide':
        return 'it is predicted whole, not in windows (--slide)'
    if predictor.tta:
        return '--tta averages views of the whole picture'
    if predictor.soft:
        return 'scores of all classes are wanted'
    own = type(model)
    names = 'slide_inference', 'inference', 'predict', 'postprocess_result'
    if any(
        getattr(own, name) is not getattr(EncoderDecoder, name)
        for name in names
    ):
        return f'{own.__name__} has its own way of testing'
    load = predictor.load
    if (
        not isinstance(load, LoadPicture)
        or load.color_type != 'color'
        or load.imdecode_backend not in (None, 'cv2')
    ):
        return 'the config reads pictures in its own way'
    others = [
        type(step).__name__
        for step in predictor.steps.transforms
        if not isinstance(step, (Resize, PackSegInputs))
    ]
    if others:
        return f'the test pipeline has the step {others[0]}'
    padding = _padding(model)
    divisor = divisor_of(model)
    if padding.get('size') or any(
        side % divisor for side in model.test_cfg.crop_size
    ):
        return 'data_preprocessor.test_cfg pads it to a size of its own'
    return None


def threshold_of(model: nn.Module) -> float:
    """Probability from which on a pixel is foreground, of one logit.

    Args:
        model: A segmentor, perhaps with a cascade of heads.
    """
    head = model.decode_head
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    return getattr(head, 'threshold', None) or 0.5


def divisor_of(model: nn.Module) -> int:
    """What the sides of pictures are filled up to multiples of.

    Args:
        model: A segmentor.
    """
    return _padding(model).get('size_divisor') or 1


def _padding(model: nn.Module) -> dict:
    return getattr(model.data_preprocessor, 'test_cfg', None) or {}
