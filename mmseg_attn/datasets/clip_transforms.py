# Copyright (c) mmseg_attn contributors.
"""From the frames of a clip to what the network takes."""

import copy
import random
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from mmseg.datasets.transforms import PackSegInputs

from ..pictures import check_depth
from ..registry import TRANSFORMS
from ..video.clips import read_clip


@TRANSFORMS.register_module()
class LoadClip(BaseTransform):
    """Load the frames of a clip.

    Args:
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.pictures.read_picture`.
    """

    def __init__(self, depth: int | None = None) -> None:
        check_depth(depth)
        self.depth = depth

    def transform(self, results: dict) -> dict:
        """Load the frames.

        Args:
            results: A sample with ``label_frame`` and ``frame_paths``, which
                :func:`~mmseg_attn.video.clips.read_clip_frame` reads.

        Returns:
            The sample with ``clip``, a list of (H, W, 3) uint8 BGR, and
            ``img``, the labelled frame.

        Raises:
            UserError: A frame cannot be read, or has another size.
        """
        label_frame = results['label_frame']
        clip = read_clip(results['frame_paths'], label_frame, self.depth)
        results['img'] = clip[label_frame]
        results['clip'] = clip
        results['img_shape'] = results['ori_shape'] = clip[0].shape[:2]
        return results


@TRANSFORMS.register_module()
class ClipTransform(BaseTransform):
    """Treat all frames of a clip alike, with any transforms for pictures.

    Every frame sees the same random numbers and the same label map, so that
    what depends on them falls out alike: the same window, the same colours.

    Args:
        transforms: Configs of transforms of one picture, such as the host's
            ``RandomResize``, ``RandomCrop`` and ``PhotoMetricDistortion``.
    """

    def __init__(self, transforms: Sequence[dict]) -> None:
        self.transforms = Compose(transforms)

    def transform(self, results: dict) -> dict:
        """Transform the frames.

        Args:
            results: A sample with ``clip`` and ``label_frame``, and what the
                transforms need.

        Returns:
            What the transforms make of the labelled frame, with the
            transformed ``clip``.
        """
        clip = results.pop('clip')
        before = _random_state()
        done = []
        for frame in clip:
            _set_random_state(before)
            item = {k: copy.deepcopy(v) for k, v in results.items()}
            done.append(self.transforms({**item, 'img': frame.copy()}))
        results = done[results['label_frame']]
        results['clip'] = [item['img'] for item in done]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.transforms})'


def _random_state() -> tuple:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_random_state(state: tuple) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


@TRANSFORMS.register_module()
class PackClipInputs(PackSegInputs):
    """Hand a clip to the network.

    The arguments are those of mmseg's ``PackSegInputs``.
    """

    def transform(self, results: dict) -> dict:
        """Pack a clip.

        Args:
            results: A sample with ``clip``, ``label_frame`` and, for the
                labelled frame, what mmseg packs.

        Returns:
            ``inputs`` (C, T, H, W) and ``data_samples``.
        """
        packed = super().transform(results)
        clip = np.stack(results['clip'])
        clip = np.ascontiguousarray(clip.transpose(3, 0, 1, 2))
        packed['inputs'] = torch.from_numpy(clip)
        packed['data_samples'].set_metainfo(
            dict(label_frame=results['label_frame'])
        )
        return packed
