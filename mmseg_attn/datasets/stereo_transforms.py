# Copyright (c) mmseg_attn contributors.
"""From the files of a pair to what the network takes."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from ..errors import UserError
from ..pictures import check_depth, size_text
from ..pictures.disparity_files import read_disparity
from ..pictures.stereo import read_stereo_pair
from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadStereoPair(BaseTransform):
    """Load both pictures of a pair, one behind the other in the channels.

    So the host's ``RandomCrop`` cuts the same window out of both.

    Args:
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.pictures.read_picture`.
    """

    def __init__(self, depth: int | None = None) -> None:
        check_depth(depth)
        self.depth = depth

    def transform(self, results: dict) -> dict:
        """Load a pair.

        Args:
            results: A sample with ``img_path`` of the left and ``right_path``
                of the right picture.

        Returns:
            The sample with ``img``, (H, W, 6) uint8: left BGR, right BGR.

        Raises:
            UserError: A file is not a whole picture, or the two differ in
                size.
        """
        paths = results['img_path'], results['right_path']
        image = np.concatenate(read_stereo_pair(*paths, self.depth), axis=2)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


@TRANSFORMS.register_module()
class LoadDisparity(BaseTransform):
    """Load the disparity map of the left picture."""

    def transform(self, results: dict) -> dict:
        """Load the map.

        Args:
            results: A sample with ``disparity_path`` and ``img_shape``.

        Returns:
            The sample with ``gt_disparity``, (H, W) float32 in pixels,
            infinite where unknown.

        Raises:
            UserError: The map cannot be read (see
                :func:`~mmseg_attn.pictures.disparity_files.read_disparity`),
                or has another size than the picture.
        """
        path = results['disparity_path']
        disparity = read_disparity(path)
        if disparity.shape != tuple(results['img_shape'][:2]):
            height, width = results['img_shape'][:2]
            raise UserError(
                f'{path} is {size_text(disparity)} pixels, its picture '
                f'{results["img_path"]} is {width} x {height}: they must be '
                'of one size.'
            )
        results['gt_disparity'] = disparity
        results.setdefault('seg_fields', []).append('gt_disparity')
        return results


@TRANSFORMS.register_module()
class PackStereoInputs(BaseTransform):
    """Hand a pair to the network as a clip of two."""

    def transform(self, results: dict) -> dict:
        """Pack a pair.

        Args:
            results: A sample with ``img`` (H, W, 6) and perhaps
                ``gt_disparity`` (H, W).

        Returns:
            ``inputs`` (3, 2, H, W) and ``data_samples``, with ``gt_disparity``
            (1, H, W).
        """
        image = torch.from_numpy(np.ascontiguousarray(results['img']))
        inputs = image.permute(2, 0, 1).unflatten(0, (2, 3)).transpose(0, 1)
        sample = SegDataSample()
        if 'gt_disparity' in results:
            disparity = np.ascontiguousarray(results['gt_disparity'])
            data = torch.from_numpy(disparity)[None]
            sample.gt_disparity = PixelData(data=data)
        keys = ('img_path', 'right_path', 'disparity_path', 'img_shape')
        keys += ('ori_shape',)
        sample.set_metainfo({k: results[k] for k in keys if k in results})
        return dict(inputs=inputs.contiguous(), data_samples=sample)
