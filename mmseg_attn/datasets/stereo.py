# Copyright (c) mmseg_attn contributors.
"""Datasets of picture pairs with disparities."""

import glob
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from ..errors import UserError
from ..registry import DATASETS

PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
MAPS = ('.pfm', '.png')


@DATASETS.register_module()
class StereoFolder(BaseDataset):
    """Folders of left pictures, right pictures and disparity maps.

    What belongs together has one name, whatever its ending, such as
    ``left/a.png``, ``right/a.png`` and ``disparity/a.pfm``; subfolders are
    searched, too. KITTI 2015 is ``data_prefix=dict(left='image_2',
    right='image_3', disparity='disp_occ_0')``, KITTI 2012
    ``dict(left='colored_0', right='colored_1', disparity='disp_occ')``: the
    pictures without a map are left out.

    Args:
        data_root: Folder of all that follow.
        data_prefix: Folders in it: ``left``, ``right`` and, unless the
            disparities are not known, ``disparity``.
        kwargs: Arguments of ``mmengine.dataset.BaseDataset``.

    Raises:
        UserError: There is no picture, or a right one is missing.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: dict | None = None,
        **kwargs: Any,
    ) -> None:
        folders = dict(left='left', right='right', disparity='disparity')
        super().__init__(
            data_root=data_root, data_prefix=data_prefix or folders, **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """Pair the files.

        Returns:
            For each pair ``img_path``, ``right_path`` and, where it is known,
            ``disparity_path``.
        """
        left = _files(self.data_prefix['left'], PICTURES)
        right = _files(self.data_prefix['right'], PICTURES)
        if not left:
            raise UserError(
                f'no picture in {self.data_prefix["left"]} (looked for '
                f'{" ".join(PICTURES)}).'
            )
        lone = [name for name in left if name not in right]
        if lone:
            raise UserError(
                f'{len(lone)} of {len(left)} left pictures have no right '
                f'one: nothing is named {lone[0]} in '
                f'{self.data_prefix["right"]}.'
            )
        pairs = {
            name: dict(img_path=str(path), right_path=str(right[name]))
            for name, path in left.items()
        }
        if 'disparity' not in self.data_prefix:
            return list(pairs.values())
        maps = _files(self.data_prefix['disparity'], MAPS)
        known = [name for name in pairs if name in maps]
        if not known:
            raise UserError(
                f'none of {len(left)} pairs has a disparity map in '
                f'{self.data_prefix["disparity"]}: expected one of the '
                f"left picture's name, {' or '.join(MAPS)}."
            )
        return [
            dict(pairs[name], disparity_path=str(maps[name])) for name in known
        ]


@DATASETS.register_module()
class SceneFlowDataset(BaseDataset):
    """Scene Flow: FlyingThings3D, Driving and Monkaa, disparities on the left.

    The archives of the pictures and of the disparities are unpacked into a
    folder for each part::

        data_root/flyingthings3d/frames_cleanpass/TRAIN/A/0000/left/0006.png
        data_root/flyingthings3d/disparity/TRAIN/A/0000/left/0006.pfm
        data_root/driving/frames_cleanpass/15mm_focallength/...
        data_root/monkaa/frames_cleanpass/...

    or, as PSMNet's code has them, into six folders side by side::

        data_root/{frames_cleanpass,frames_disparity}/TRAIN/A/0000/...
        data_root/{driving_frames_cleanpass,driving_disparity}/...
        data_root/{monkaa_frames_cleanpass,monkaa_disparity}/...

    The split is that of PSMNet's code: to train, all of Driving and Monkaa
    and TRAIN of FlyingThings3D; to test, TEST of FlyingThings3D.

    Args:
        data_root: Folder of the three parts, or of the six folders.
        split: 'train' or 'test'.
        rendering: 'cleanpass' or 'finalpass', with blur and fog.
        kwargs: Arguments of ``mmengine.dataset.BaseDataset``.

    Raises:
        UserError: ``split`` or ``rendering`` is not one of these, a part is
            missing, or a picture has no partner or map.

    A Large Dataset to Train Convolutional Networks for Disparity, Optical
    Flow, and Scene Flow Estimation, https://arxiv.org/abs/1512.02134.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        rendering: str = 'cleanpass',
        **kwargs: Any,
    ) -> None:
        if split not in ('train', 'test'):
            raise UserError(f"split must be 'train' or 'test', got {split!r}.")
        if rendering not in ('cleanpass', 'finalpass'):
            raise UserError(
                "rendering must be 'cleanpass' or 'finalpass', got "
                f'{rendering!r}.'
            )
        self.split, self.rendering = split, rendering
        super().__init__(data_root=data_root, **kwargs)

    def _folders(self, part: str) -> tuple[Path, Path]:
        """Those of a part's pictures and maps, in the layout that is there."""
        root = Path(self.data_root)
        frames = f'frames_{self.rendering}'
        things = part == 'flyingthings3d'
        side_by_side = root / (frames if things else f'{part}_{frames}')
        if side_by_side.is_dir():
            maps = 'frames_disparity' if things else f'{part}_disparity'
            return side_by_side, root / maps
        return root / part / frames, root / part / 'disparity'

    def load_data_list(self) -> list[dict]:
        """Find the pairs.

        Returns:
            For each pair ``img_path``, ``right_path`` and
            ``disparity_path``.
        """
        pairs = []
        parts = [('flyingthings3d', self.split.upper())]
        if self.split == 'train':
            parts += [('driving', ''), ('monkaa', '')]
        for part, below in parts:
            frames, folder = self._folders(part)
            maps = _files(folder / below, ('.pfm',))
            pictures = _files(frames / below, PICTURES)
            left = [n for n in pictures if n.parent.name == 'left']
            if not left:
                raise UserError(
                    f'no left picture in {frames / below}: expected '
                    f'.../left/*.png there, unpacked from the archive of '
                    f'{part}.'
                )
            for name in left:
                other = name.parent.parent / 'right' / name.name
                for kind, there in (
                    ('right picture', other in pictures),
                    ('disparity map', name in maps),
                ):
                    if not there:
                        raise UserError(
                            f'{pictures[name]} has no {kind}: an archive of '
                            f'{part} is missing or not unpacked whole.'
                        )
                pairs.append(
                    dict(
                        img_path=str(pictures[name]),
                        right_path=str(pictures[other]),
                        disparity_path=str(maps[name]),
                    )
                )
        return pairs


def _files(folder: str | Path, endings: tuple[str, ...]) -> dict[Path, Path]:
    """Names below a folder without their endings -> files, sorted.

    Links are followed; hidden files, such as macOS leaves beside others, are
    passed over.
    """
    found = sorted(glob.glob('**', root_dir=folder, recursive=True))
    return {
        Path(name).with_suffix(''): path
        for name in found
        if (path := Path(folder, name)).suffix.lower() in endings
        and path.is_file()
    }
