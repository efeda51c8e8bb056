# Copyright (c) mmseg_attn contributors.
"""Segment the frames of videos with the help of those around them."""

import os
from collections.abc import Iterable, Iterator
from itertools import starmap
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import pseudo_collate

from ..errors import UserError
from ..inference.samples import Sample, ScoredMap
from ..models.decode_heads.cc_head_3d import middle
from ..models.segmentors import ClipEncoderDecoder
from ..video.clips import Clip
from .predictors import Segmenter
from .test_pipelines import test_dataset


class ClipSegmenter(Segmenter):
    """Segment frames with the help of those around them.

    Arguments as of :class:`Predictor`. How many frames a clip has, and how
    far apart they are, the config's test dataset says.

    Attributes:
        clip: Which frames these are.
    """

    def __init__(self, model: ClipEncoderDecoder, tta: bool = False) -> None:
        if tta:
            raise UserError(
                '--tta: the frames of a video are looked at once, as they '
                'come, for all clips that hold them: a model for clips '
                'averages over flips and scales in the command test alone.'
            )
        super().__init__(model)
        self.clip = clip_of(model)
        dataset = test_dataset(model.cfg)
        root, prefix = dataset.get('data_root'), dataset.get('data_prefix', {})
        self._folders = [
            os.path.abspath(os.path.join(root or '', prefix[key]))
            for key in ('img_path', 'frame_path')
            if prefix.get(key)
        ]

    def prepare(self, image: str | Path | np.ndarray) -> Sample:
        """Read a picture and the frames around it.

        Args:
            image: Path, whose neighbours are found by the number that ends
                their names, beside it or, for the config's test pictures, in
                their ``frame_path``; or a frame for itself, (H, W, 3) uint8 in
                BGR order.

        Returns:
            What :meth:`__call__` takes.

        Raises:
            UserError: If a file is not a whole picture, or of another size.
        """
        if isinstance(image, np.ndarray):
            results = dict(img=image, clip=[image], label_frame=0)
            results['img_shape'] = results['ori_shape'] = image.shape[:2]
        else:
            path = str(image)
            paths = self.clip.paths(path, self._folder_of_others(path))
            results = self.load(
                dict(
                    img_path=path,
                    frame_paths=paths,
                    label_frame=self.clip.label_frame,
                )
            )
        picture = results['img']
        return Sample(picture, self.steps(results))

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
    ) -> Iterator[tuple[np.ndarray, np.ndarray | ScoredMap]]:
        """Segment a video of any length in bounded memory.

        The backbone sees each frame once: what it makes of those in reach of
        a clip is kept. Beyond the ends stands the first or the last frame.
        In windows, and where frames far apart make a clip (``frame_step``),
        the frames themselves are kept, and each clip is computed anew.

        Args:
            frames: (H, W, 3) uint8 in BGR order.
            batch_size: Not used: frames come one by one.

        Yields:
            A frame and its class map, in order.

        Raises:
            UserError: The frames change in size.
        """
        encode = self._encode
        if self.clip.step > 1 or self.model.test_cfg.get('mode') == 'slide':
            encode = self.prepare
        # Nothing of a clip is held while the next frame is encoded.
        yield from starmap(self._segment, self.clip.stream(frames, encode))

    def _encode(self, frame: np.ndarray) -> tuple:
        sample = self.prepare(frame)
        data = pseudo_collate([sample.data])
        data = self.model.data_preprocessor(data, False)
        x, reduced = self.model.encode_frame(data['inputs'])
        return sample, data['data_samples'], x, reduced

    def _segment(
        self, frame: np.ndarray, clip: list
    ) -> tuple[np.ndarray, np.ndarray | ScoredMap]:
        """A frame and its class map, from what was made of its clip."""
        own = clip[self.clip.label_frame]
        if isinstance(own, Sample):
            inputs = [sample.data['inputs'] for sample in clip]
            data = {**own.data, 'inputs': torch.cat(inputs, dim=1)}
            meta = dict(label_frame=self.clip.label_frame)
            data['data_samples'].set_metainfo(meta)
            return frame, self([Sample(frame, data)])[0]
        sample, data_samples, x, _ = own
        metas = [item.metainfo for item in data_samples]
        reduced = [item[3] for item in clip]
        logits = self.model.decode_frames(x, reduced, metas)
        (result,) = self.model.postprocess_result(logits, data_samples)
        return frame, self.take(sample, result)


def clip_of(model: ClipEncoderDecoder) -> Clip:
    """Say which frames a model segments a frame with.

    Args:
        model: As from :func:`~mmseg_attn.apis.load_model`.

    Returns:
        What the config's test dataset says.

    Raises:
        UserError: The model segments a frame that clips do not have.
    """
    dataset = test_dataset(model.cfg)
    frames, step = dataset.get('frames', 5), dataset.get('frame_step', 1)
    return Clip(frames, middle(frames, model.label_frame), step)
