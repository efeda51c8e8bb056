# Copyright (c) mmseg_attn contributors.
"""Run a model on pictures, or on pairs of them."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import LoadAnnotations, Resize
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from mmseg.datasets.transforms import LoadImageFromNDArray
from mmseg.structures import SegDataSample
from torch import nn

from ..datasets.stereo_transforms import LoadDisparity
from ..engine.data_checks import use_own_loader
from ..errors import UserError
from ..inference.samples import Runner, Sample, ScoredMap
from ..models.segmentors import SegTTAModel
from ..pictures import check_depth
from ..visualization.overlay import as_bgr8
from .test_pipelines import (
    add_detection_views,
    add_picture_views,
    refuse_views,
    test_pipeline,
    tta_model,
)


class Predictor(Runner):
    """Prepare pictures as the model's config says for testing.

    Attributes:
        load: The test pipeline's first step, which reads files.
        steps: The other steps.
        model: The model.
        tta: Whether views are averaged.

    Args:
        model: With ``cfg`` set, as from :func:`~mmseg_attn.apis.load_model`.
        tta: Average over flips and scales: those of the config's
            ``tta_pipeline``, or, made of its test pipeline, six and a flip.

    Raises:
        UserError: If the config has no pipeline for this, or the model no
            test-time augmentation.
    """

    add_views = staticmethod(add_picture_views)

    def __init__(self, model: nn.Module, tta: bool = False) -> None:
        cfg = model.cfg
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        if tta:
            cfg = copy.deepcopy(cfg)
            self.add_views(cfg)
        pipeline = cfg.tta_pipeline if tta else test_pipeline(cfg)
        pipeline = copy.deepcopy(pipeline)
        use_own_loader(pipeline)
        steps = Compose(pipeline).transforms
        # Pictures to be predicted have no labels to load.
        labels = (LoadAnnotations, LoadDisparity)
        steps = [s for s in steps if not isinstance(s, labels)]
        for step in steps:
            if isinstance(getattr(step, 'subroutines', None), list):
                _drop_label_loading(step)
        self.load, self.steps = steps[0], Compose(steps[1:])
        self._take = LoadImageFromNDArray(
            to_float32=getattr(self.load, 'to_float32', False)
        )
        self.model, self.tta = model, tta
        self._runs = model
        if tta:
            self._runs = MODELS.build({**tta_model(cfg), 'module': model})

    def set_depth(self, depth: int) -> None:
        """Say how many bits of 16-bit pictures are used.

        Args:
            depth: Number of bits, as of
                :func:`~mmseg_attn.pictures.read_picture`.

        Raises:
            UserError: The config loads pictures in another way.
        """
        check_depth(depth)
        unchanged = getattr(self.load, 'color_type', None) == 'unchanged'
        if unchanged or not hasattr(self.load, 'depth'):
            raise UserError(
                'depth (--depth) scales pictures to 8 bits, but the config '
                f'loads them unchanged, with {type(self.load).__name__}.'
            )
        self.load.depth = depth

    def prepare(self, image: str | Path | np.ndarray) -> Sample:
        """Read a picture and run the test pipeline on it.

        Args:
            image: Path, or the picture as (H, W, 3) uint8 in BGR order.

        Returns:
            What :meth:`__call__` takes.

        Raises:
            UserError: If the file is not a whole picture.
        """
        if not isinstance(image, (str, os.PathLike, np.ndarray)):
            raise UserError(
                f'got a {type(image).__name__}, expected a path or a picture '
                'as an array (H, W, 3) uint8 in BGR order; of a Pillow image '
                "np.asarray(image.convert('RGB'))[..., ::-1]."
            )
        if isinstance(image, np.ndarray):
            self._check_array(image)
            results = self._take(dict(img=image))
        else:
            results = self._read(Path(image))
        picture = as_bgr8(results['img'])
        return Sample(picture, self.steps(results))

    def _check_array(self, image: np.ndarray) -> None:
        """Refuse what would be broadcast to a picture of other channels."""
        mean = getattr(self.model.data_preprocessor, 'mean', None)
        channels = 3 if mean is None else mean.numel()
        shape = image.shape if image.ndim == 3 else (*image.shape, 1)
        if not image.size or len(shape) != 3 or shape[2] != channels:
            raise UserError(
                f'got a picture of shape {image.shape}, expected (H, W, '
                f'{channels}) with pixels.'
            )
        if channels == 3 and image.dtype != np.uint8:
            raise UserError(
                f'got a picture of dtype {image.dtype}, expected uint8, 0 to '
                '255, in BGR order.'
            )

    def _read(self, path: Path) -> dict:
        try:
            results = self.load({'img_path': str(path)})
        except FileNotFoundError as error:
            raise UserError(f'{path} does not exist.') from error
        except IsADirectoryError as error:
            raise UserError(
                f'{path} is a folder, expected a picture; predict_files and '
                'the command predict take folders.'
            ) from error
        except UserError:
            raise
        except (AssertionError, ValueError, cv2.error):
            results = None
        if results is None:  # also by a loader's ignore_empty
            raise UserError(
                f'{path} cannot be read as a picture: it is damaged, cut '
                'off, or in a format that the loader does not know.'
            )
        return results

    @torch.inference_mode()
    def _run(self, samples: Sequence[Sample]) -> list:
        batch = pseudo_collate([sample.data for sample in samples])
        return self._runs.test_step(batch)


class Segmenter(Predictor):
    """Segment pictures as the model's config says for testing.

    Arguments as of :class:`Predictor`.

    Attributes:
        soft: Whether results are with the scores of all classes.
    """

    soft: bool = False

    def keep_scores(self) -> None:
        """Give results with scores from now on.

        Raises:
            UserError: Views are averaged by a model that does not keep them.
        """
        if self.tta and not isinstance(self._runs, SegTTAModel):
            raise UserError(
                f'{type(self._runs).__name__} (tta_model) does not keep '
                'scores: leave out --tta, or take SegTTAModel.'
            )
        self.soft = True

    def keep_size(self) -> None:
        """Predict pictures at their own size from now on.

        Raises:
            UserError: Views of several sizes are averaged.
        """
        if self.tta:
            raise UserError('--no-resize: --tta resizes; leave one out.')
        self.steps.transforms = [
            step
            for step in self.steps.transforms
            if not isinstance(step, Resize)
        ]

    def __call__(
        self, samples: Sequence[Sample]
    ) -> list[np.ndarray] | list[ScoredMap]:
        """Predict the class of every pixel.

        Args:
            samples: Pictures whose network inputs have equal sizes.

        Returns:
            One (H, W) map of class indices for each picture, at the picture's
            size; uint8, or uint16 beyond 256 classes. If ``soft``, it is with
            scores.
        """
        return [
            self.take(sample, result)
            for sample, result in zip(samples, self._run(samples), strict=True)
        ]

    def take(
        self, sample: Sample, result: SegDataSample
    ) -> np.ndarray | ScoredMap:
        """Take the class map (H, W), perhaps with scores, out of a result."""
        wide = len(self.model.dataset_meta['classes']) > 256
        mask = result.pred_sem_seg.data.cpu().numpy()
        mask = mask.reshape(sample.picture.shape[:2])
        mask = mask.astype(np.uint16 if wide else np.uint8)
        if not self.soft:
            return mask
        scores = result.seg_logits.data
        if len(scores) == 1:  # the host's sigmoid has been there
            scores = torch.cat([1 - scores, scores])
        elif not self.tta:  # whose mean is of probabilities
            scores = scores.softmax(0)
        return ScoredMap(mask, scores.float().cpu().numpy())


class Detector(Predictor):
    """Detect objects as the model's config says for testing.

    Arguments as of :class:`Predictor`.
    """

    add_views = staticmethod(add_detection_views)

    def __call__(self, samples: Sequence[Sample]) -> list[InstanceData]:
        """Predict boxes, and masks where the model has them.

        Args:
            samples: Pictures.

        Returns:
            Of each picture ``bboxes`` (N, 4) as x1, y1, x2, y2 in pixels of
            the picture, ``labels`` (N,), ``scores`` (N,) and of a model with
            masks ``masks`` (N, H, W) bool.
        """
        return [result.pred_instances.cpu() for result in self._run(samples)]


class StereoMatcher(Predictor):
    """Predict the disparities of pairs as the model's config says.

    Arguments as of :class:`Predictor`.
    """

    add_views = staticmethod(refuse_views)

    def prepare(self, image: tuple[str | Path, str | Path]) -> Sample:
        """Read a pair and run the test pipeline on it.

        Args:
            image: Paths of the left and the right picture.

        Returns:
            With the left picture.

        Raises:
            UserError: If a file is not a whole picture, or the two differ in
                size.
        """
        left, right = map(str, image)
        results = self.load(dict(img_path=left, right_path=right))
        return Sample(results['img'][..., :3], self.steps(results))

    def __call__(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Predict disparities.

        Args:
            samples: Pairs of one size.

        Returns:
            One (H, W) map of each pair, float32, in pixels of the picture.
        """
        return [
            result.pred_disparity.data[0].cpu().numpy()
            for result in self._run(samples)
        ]


def _drop_label_loading(step) -> None:
    """Take the loading of labels out of a TestTimeAug transform."""
    for chain in step.subroutines:
        chain.transforms = [
            t for t in chain.transforms if not isinstance(t, LoadAnnotations)
        ]
