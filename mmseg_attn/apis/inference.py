# Copyright (c) mmseg_attn contributors.
"""Load a segmentor or detector and run it on pictures."""

import colorsys
import copy
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from mmcv.transforms import LoadAnnotations
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import InstanceData
from mmseg.datasets.transforms import LoadImageFromNDArray
from mmseg.structures import SegDataSample
from torch import nn

from ..configs import find_config, is_detector, is_of_clips, is_stereo
from ..datasets.clips import clip_paths
from ..datasets.stereo_transforms import LoadDisparity
from ..engine.checkpoint import load_weights
from ..engine.config_errors import check_installed, model_mistakes
from ..errors import UserError
from ..models.decode_heads.cc_head_3d import middle
from ..models.segmentors import ClipEncoderDecoder


def load_model(
    config: str | Config,
    checkpoint: str | None,
    *,
    device: str | None = None,
    classes: Sequence[str] | None = None,
    slide: int | tuple[int, int] | None = None,
) -> nn.Module:
    """Build a segmentor or detector with its trained weights.

    Nothing is downloaded for the backbone, since the checkpoint replaces it.

    Args:
        config (str | Config): Path or name of a config (see
            :func:`~mmseg_attn.configs.find_config`), or a loaded one.
        checkpoint (str | None): Path of the weights; None leaves them random.
        device (str | None): Such as ``'cpu'`` or ``'cuda:1'``; by default
            the best there is.
        classes (Sequence[str] | None): Names of the classes. By default
            those of the checkpoint, else those of the config's dataset.
        slide (int | tuple[int, int] | None): Predict in overlapping windows
            of this size (height, width) in pixels; 0 takes the size from the
            config. None keeps the config's way. Of segmentors only.

    Returns:
        nn.Module: The model in eval mode, with ``cfg`` and ``dataset_meta``
        (classes and palette) set.

    Raises:
        UserError: If there is no such config or checkpoint, if they do not
            belong together, or if a value does not fit.
    """
    if not isinstance(config, Config):
        config = Config.fromfile(find_config(config))
    config = copy.deepcopy(config)
    device = _check_device(device or get_device())
    if 'model' not in config:
        raise UserError(
            f'{config.filename} has no `model`; expected the config of a '
            'segmentor, that which its checkpoint was trained with.'
        )
    check_installed(config)
    _drop_pretrained(config.model)
    config.model.pop('auxiliary_head', None)  # only for training
    init_default_scope(config.get('default_scope', 'mmseg'))
    with model_mistakes():
        model = MODELS.build(config.model)
    stereo = is_stereo(config)
    if _outputs(model) is None and not stereo:
        raise UserError(
            f'{config.filename} builds a {type(model).__name__}; expected a '
            'segmentor such as EncoderDecoder, or with default_scope '
            "'mmdet' a detector such as MaskRCNN."
        )
    if (is_detector(config) or stereo) and slide is not None:
        raise UserError('only segmentors predict in windows (--slide).')
    if stereo and classes:
        raise UserError('a stereo network has no classes (--classes).')
    saved = {}
    if checkpoint is not None:
        saved = load_weights(model, checkpoint)
    model = revert_sync_batchnorm(model)  # a CPU has no synchronised one
    model.cfg = config
    model.dataset_meta = dict(classes=(), palette=[])
    if not stereo:
        meta = saved.get('meta', {})
        model.dataset_meta = _dataset_meta(model, meta, classes)
    if slide is not None:
        model.test_cfg = _sliding(config, slide)
    return model.to(device).eval()


def check_segmentor(config: Config, clips: bool = False) -> None:
    """Refuse a model in what is only for segmentors.

    Args:
        config (Config): The config.
        clips (bool): Whether segmentors for clips may pass.

    Raises:
        UserError: It is of another kind of model.
    """
    for kind, found in (
        ('detector', is_detector(config)),
        ('stereo network', is_stereo(config)),
        ('segmentor for clips', is_of_clips(config) and not clips),
    ):
        if found:
            raise UserError(
                f'{config.filename} is of a {kind}, and this is for '
                'segmentors of single pictures.'
            )


def make_predictor(model: nn.Module, tta: bool = False) -> 'Predictor':
    """Choose the class that runs a model.

    Args:
        model (nn.Module): As from :func:`load_model`.
        tta (bool): As of :class:`Predictor`.

    Returns:
        Predictor: A :class:`Segmenter`, :class:`ClipSegmenter`,
        :class:`Detector` or :class:`StereoMatcher`.
    """
    if is_stereo(model.cfg):
        return StereoMatcher(model, tta)
    if isinstance(model, ClipEncoderDecoder):
        return ClipSegmenter(model, tta)
    return (Detector if is_detector(model.cfg) else Segmenter)(model, tta)


@dataclass(eq=False)  # arrays do not compare
class Sample:
    """A picture and what the model takes of it.

    Attributes:
        picture (np.ndarray): As read, (H, W, 3) uint8 in BGR order.
        data (dict): The test pipeline's output.
    """

    picture: np.ndarray
    data: dict


class Predictor:
    """Prepare pictures as the model's config says for testing.

    Args:
        model (nn.Module): With ``cfg`` set, as from :func:`load_model`.
        tta (bool): Average over the flips and scales of the config's
            ``tta_pipeline``.

    Raises:
        UserError: If the config has no pipeline for this.
    """

    def __init__(self, model: nn.Module, tta: bool = False) -> None:
        cfg = model.cfg
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        if tta and not ('tta_model' in cfg and 'tta_pipeline' in cfg):
            raise UserError(
                'The config has no `tta_model` and `tta_pipeline`, which '
                'test-time augmentation needs; add them, or predict '
                'without it.'
            )
        pipeline = cfg.tta_pipeline if tta else _test_pipeline(cfg)
        steps = Compose(copy.deepcopy(pipeline)).transforms
        # Pictures to be predicted have no labels to load.
        labels = (LoadAnnotations, LoadDisparity)
        steps = [s for s in steps if not isinstance(s, labels)]
        for step in steps:
            if isinstance(getattr(step, 'subroutines', None), list):
                _drop_label_loading(step)
        self._load, self._steps = steps[0], Compose(steps[1:])
        self._take = LoadImageFromNDArray(
            to_float32=getattr(self._load, 'to_float32', False)
        )
        self.model = model
        self._runs = model
        if tta:
            self._runs = MODELS.build({**cfg.tta_model, 'module': model})

    def prepare(self, image: str | Path | np.ndarray) -> Sample:
        """Read a picture and run the test pipeline on it.

        Args:
            image (str | Path | np.ndarray): Path, or the picture as
                (H, W, 3) uint8 in BGR order.

        Returns:
            Sample: What :meth:`__call__` takes.

        Raises:
            UserError: If the file is not a whole picture.
        """
        if isinstance(image, np.ndarray):
            results = self._take(dict(img=image))
        else:
            results = self._read(Path(image))
        picture = as_bgr8(results['img'])
        return Sample(picture, self._steps(results))

    def _read(self, path: Path) -> dict:
        try:
            results = self._load({'img_path': str(path)})
        except (AssertionError, ValueError, cv2.error):
            results = None
        if results is None:  # also by a loader's ignore_empty
            raise UserError(
                f'{path} cannot be read as a picture: it is damaged, cut '
                'off, or in a format that the loader does not know.'
            )
        return results

    def stream(
        self, frames: Iterable[np.ndarray], batch_size: int = 1
    ) -> Iterator[tuple[np.ndarray, object]]:
        """Predict the frames of a video as they come.

        Args:
            frames (Iterable[np.ndarray]): (H, W, 3) uint8 in BGR order.
            batch_size (int): Frames at a time.

        Yields:
            tuple: A frame and its prediction, in order.
        """
        samples = map(self.prepare, frames)
        while batch := list(islice(samples, batch_size)):
            for sample, found in zip(batch, self(batch), strict=True):
                yield sample.picture, found

    @torch.inference_mode()
    def _run(self, samples: Sequence[Sample]) -> list:
        batch = pseudo_collate([sample.data for sample in samples])
        return self._runs.test_step(batch)


class Segmenter(Predictor):
    """Segment pictures as the model's config says for testing.

    Arguments as of :class:`Predictor`.
    """

    def __call__(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Predict the class of every pixel.

        Args:
            samples (Sequence[Sample]): Pictures whose network inputs have
                equal sizes.

        Returns:
            list[np.ndarray]: One (H, W) map of class indices for each
            picture, at the picture's size; uint8, or uint16 beyond 256
            classes.
        """
        return [
            self._mask(sample, result)
            for sample, result in zip(samples, self._run(samples), strict=True)
        ]

    def _mask(self, sample: Sample, result: SegDataSample) -> np.ndarray:
        wide = len(self.model.dataset_meta['classes']) > 256
        mask = result.pred_sem_seg.data.cpu().numpy()
        mask = mask.reshape(sample.picture.shape[:2])
        return mask.astype(np.uint16 if wide else np.uint8)


class ClipSegmenter(Segmenter):
    """Segment frames with the help of those around them.

    Arguments as of :class:`Predictor`. How many frames a clip has, and how
    far apart they are, the config's test dataset says.
    """

    def __init__(self, model: nn.Module, tta: bool = False) -> None:
        if tta:
            raise UserError('a model for clips has no test-time augmentation.')
        super().__init__(model)
        dataset = _test_dataset(model.cfg)
        self.frames = dataset.get('frames', 5)
        self.step = dataset.get('frame_step', 1)
        self.label_frame = middle(self.frames, model.label_frame)
        root, prefix = dataset.get('data_root'), dataset.get('data_prefix', {})
        self._folders = [
            os.path.abspath(os.path.join(root or '', prefix[key]))
            for key in ('img_path', 'frame_path')
            if prefix.get(key)
        ]
        self._told = self.frames == 1

    def prepare(self, image: str | Path | np.ndarray) -> Sample:
        """Read a picture and the frames around it.

        Args:
            image (str | Path | np.ndarray): Path, whose neighbours are found
                by the number that ends their names, beside it or, for the
                config's test pictures, in their ``frame_path``; or a frame
                for itself, (H, W, 3) uint8 in BGR order.

        Returns:
            Sample: What :meth:`__call__` takes.

        Raises:
            UserError: If a file is not a whole picture, or of another size.
        """
        if isinstance(image, np.ndarray):
            results = dict(img=image, clip=[image], label_frame=0)
            results['img_shape'] = results['ori_shape'] = image.shape[:2]
        else:
            path = str(image)
            paths = clip_paths(
                *(path, self.frames, self.label_frame, self.step),
                self._folder_of_others(path),
            )
            if len(set(paths)) == 1 and not self._told:
                self._told = True
                warnings.warn(
                    f'{path} has no other frame beside it: its clip is this '
                    f'picture {self.frames} times. Others are found by the '
                    f'last number of their name, {self.step} higher or lower.',
                    stacklevel=2,
                )
            results = self._load(
                dict(
                    img_path=path,
                    frame_paths=paths,
                    label_frame=self.label_frame,
                )
            )
        picture = results['img']
        return Sample(picture, self._steps(results))

    def _folder_of_others(self, path: str) -> str | None:
        """``frame_path`` for a picture below the config's ``img_path``."""
        if len(self._folders) < 2:
            return None
        pictures, others = self._folders
        place = os.path.relpath(os.path.dirname(path) or '.', pictures)
        outside = place.split(os.sep)[0] == os.pardir
        return None if outside else os.path.join(others, place)

    @torch.inference_mode()
    def stream(
        self, frames: Iterable[np.ndarray], batch_size: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Segment a video of any length in bounded memory.

        The backbone sees each frame once: what it makes of those in reach of
        a clip is kept. Beyond the ends stands the first or the last frame.
        In windows, and where frames far apart make a clip (``frame_step``),
        the frames themselves are kept, and each clip is computed anew.

        Args:
            frames (Iterable[np.ndarray]): (H, W, 3) uint8 in BGR order.
            batch_size (int): Not used: frames come one by one.

        Yields:
            tuple: A frame and its class map, in order.

        Raises:
            UserError: The frames change in size.
        """
        before = self.label_frame * self.step
        after = (self.frames - 1 - self.label_frame) * self.step
        # What is in reach of the next frame to be segmented, by number.
        kept = {}
        encode = self._encode
        if self.step > 1 or self.model.test_cfg.get('mode') == 'slide':
            encode = self.prepare
        last, size = -1, None
        for last, frame in enumerate(frames):
            size = size or frame.shape
            if frame.shape != size:
                raise UserError(
                    f'frame {last} is {frame.shape[1]} x {frame.shape[0]} '
                    f'pixels, those before are {size[1]} x {size[0]}: '
                    'expected a video of one size.'
                )
            kept[last] = (frame, encode(frame))
            if last >= after:
                yield self._segment(kept, last - after, last)
                kept.pop(last - after - before, None)
        for number in range(max(0, last + 1 - after), last + 1):
            yield self._segment(kept, number, last)
            kept.pop(number - before, None)

    def _encode(self, frame: np.ndarray) -> tuple:
        sample = self.prepare(frame)
        data = pseudo_collate([sample.data])
        data = self.model.data_preprocessor(data, False)
        x, reduced = self.model.encode_frame(data['inputs'])
        return sample, data['data_samples'], x, reduced

    def _segment(
        self, kept: dict, number: int, last: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """A frame and its class map, from what is kept of its clip."""
        numbers = [
            min(max(number + self.step * (i - self.label_frame), 0), last)
            for i in range(self.frames)
        ]
        frame, own = kept[number]
        clip = [kept[n][1] for n in numbers]
        if isinstance(own, Sample):
            inputs = [sample.data['inputs'] for sample in clip]
            data = {**own.data, 'inputs': torch.cat(inputs, dim=1)}
            meta = dict(label_frame=self.label_frame)
            data['data_samples'].set_metainfo(meta)
            return frame, self([Sample(frame, data)])[0]
        sample, data_samples, x, _ = own
        metas = [item.metainfo for item in data_samples]
        reduced = [item[3] for item in clip]
        logits = self.model.decode_frames(x, reduced, metas)
        (result,) = self.model.postprocess_result(logits, data_samples)
        return frame, self._mask(sample, result)


class Detector(Predictor):
    """Detect objects as the model's config says for testing.

    Arguments as of :class:`Predictor`.
    """

    def __call__(self, samples: Sequence[Sample]) -> list[InstanceData]:
        """Predict boxes, and masks where the model has them.

        Args:
            samples (Sequence[Sample]): Pictures.

        Returns:
            list[InstanceData]: Of each picture ``bboxes`` (N, 4) as x1, y1,
            x2, y2 in pixels of the picture, ``labels`` (N,), ``scores`` (N,)
            and of a model with masks ``masks`` (N, H, W) bool.
        """
        return [result.pred_instances.cpu() for result in self._run(samples)]


class StereoMatcher(Predictor):
    """Predict the disparities of pairs as the model's config says.

    Arguments as of :class:`Predictor`.
    """

    def prepare(self, image: tuple[str | Path, str | Path]) -> Sample:
        """Read a pair and run the test pipeline on it.

        Args:
            image (tuple): Paths of the left and the right picture.

        Returns:
            Sample: With the left picture.

        Raises:
            UserError: If a file is not a whole picture, or the two differ in
                size.
        """
        left, right = map(str, image)
        results = self._load(dict(img_path=left, right_path=right))
        return Sample(results['img'][..., :3], self._steps(results))

    def __call__(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Predict disparities.

        Args:
            samples (Sequence[Sample]): Pairs of one size.

        Returns:
            list[np.ndarray]: One (H, W) map of each pair, float32, in pixels
            of the picture.
        """
        return [
            result.pred_disparity.data[0].cpu().numpy()
            for result in self._run(samples)
        ]


def input_size(sample: Sample) -> tuple:
    """Size of what the network sees; samples that share it make a batch.

    Args:
        sample (Sample): A prepared picture.

    Returns:
        tuple: The shape, or the shapes of all augmented views.
    """
    inputs = sample.data['inputs']
    views = inputs if isinstance(inputs, list) else [inputs]
    return tuple(tuple(view.shape) for view in views)


def make_palette(classes: int) -> list[list[int]]:
    """Colours that differ for neighbouring class indices.

    Args:
        classes (int): How many.

    Returns:
        list[list[int]]: One (red, green, blue) of 0 to 255 for each class.
    """
    colours = []
    for index in range(classes):
        # Steps of the golden ratio never come close to an earlier hue soon.
        hue = (0.58 + index * 0.618034) % 1
        value = (0.95, 0.7)[index // 8 % 2]
        rgb = colorsys.hsv_to_rgb(hue, 0.65, value)
        colours.append([round(255 * channel) for channel in rgb])
    return colours


def as_bgr8(image: np.ndarray) -> np.ndarray:
    """Make a loaded picture of any depth and channel count showable.

    Args:
        image (np.ndarray): (H, W) or (H, W, channels); the first channel is
            shown where there are not three.

    Returns:
        np.ndarray: (H, W, 3) uint8; values beyond 0 to 255 are rescaled.
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[-1] != 3:
        image = image[..., :1].repeat(3, axis=-1)
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        if low < 0 or high > 255:
            image = (image - low) * (255 / max(high - low, 1e-12))
        image = image.astype(np.uint8)
    return image


def _check_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f'Device {name!r} cannot be used here ({reason}); try cpu.'
        ) from error
    return device


def _drop_pretrained(config: ConfigDict) -> None:
    """Switch off ``pretrained``: some backbones download when built."""
    for key, value in config.items():
        if key == 'pretrained':
            config[key] = None
        elif isinstance(value, dict):
            _drop_pretrained(value)


def _drop_label_loading(step) -> None:
    """Take the loading of labels out of a TestTimeAug transform."""
    for chain in step.subroutines:
        chain.transforms = [
            t for t in chain.transforms if not isinstance(t, LoadAnnotations)
        ]


def _test_dataset(cfg: Config) -> ConfigDict:
    dataset = cfg.get('test_dataloader', cfg.get('val_dataloader'))
    dataset = dataset.dataset if dataset else ConfigDict()
    while 'dataset' in dataset:  # wrapped
        dataset = dataset.dataset
    return dataset


def _test_pipeline(cfg: Config) -> list:
    pipeline = _test_dataset(cfg).get('pipeline', cfg.get('test_pipeline'))
    if not pipeline:
        raise UserError(
            'The config has neither `test_dataloader.dataset.pipeline` nor '
            '`test_pipeline`, one of which says how to read a picture.'
        )
    return pipeline


def _outputs(model: nn.Module) -> int | None:
    """Number of classes of a segmentor's or a detector's last head."""
    head = getattr(model, 'decode_head', None) or getattr(
        getattr(model, 'roi_head', model), 'bbox_head', None
    )
    if isinstance(head, nn.ModuleList):  # a cascade
        head = head[-1]
    return getattr(head, 'num_classes', None)


def _dataset_meta(
    model: nn.Module, saved: dict, classes: Sequence[str] | None
) -> dict:
    outputs = _outputs(model)
    if classes and len(classes) != outputs:
        raise UserError(
            f'Got {len(classes)} class names for a model of {outputs} classes.'
        )
    dataset = _test_dataset(model.cfg)
    kind = None
    if 'type' in dataset:
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(dataset.type)
    sources = [
        dict(classes=classes),
        saved.get('dataset_meta') or {},
        dict(classes=saved.get('CLASSES'), palette=saved.get('PALETTE')),
        {**getattr(kind, 'METAINFO', {}), **dataset.get('metainfo', {})},
        dict(classes=[f'class {i}' for i in range(outputs)]),
    ]
    for meta in sources:
        names, palette = meta.get('classes'), meta.get('palette')
        if names is not None and len(names) == outputs:
            break
    if palette is None or len(palette) != len(names):
        palette = make_palette(len(names))
    palette = [[int(value) for value in colour] for colour in palette]
    return dict(classes=tuple(names), palette=palette)


def _sliding(cfg: Config, size: int | tuple[int, int]) -> ConfigDict:
    test_cfg = cfg.model.get('test_cfg', {})
    crop = (
        size
        or test_cfg.get('crop_size')
        or cfg.model.get('data_preprocessor', {}).get('size')
    )
    if not crop:
        raise UserError(
            'The config names no window size (`model.test_cfg.crop_size`); '
            'give one.'
        )
    crop = (crop, crop) if isinstance(crop, int) else tuple(crop)
    stride = tuple(max(1, side * 2 // 3) for side in crop)
    return ConfigDict(mode='slide', crop_size=crop, stride=stride)
