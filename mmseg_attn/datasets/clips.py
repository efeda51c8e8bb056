# Copyright (c) mmseg_attn contributors.
"""Datasets of clips: a labelled picture and the frames around it."""

import os
import re
from pathlib import Path
from typing import Any

from mmengine import list_from_file
from mmseg.datasets import BaseSegDataset

from ..errors import UserError
from ..registry import DATASETS
from ..video import VIDEOS, count_frames
from ..video.clips import NUMBERED, clip_paths, frame_path, outward
from .camvid import VIDEO_NAMES, CamVidDataset
from .folder import FolderDataset

# What may stand between a video's name and the number of a frame.
BETWEEN = re.compile(r'[-_.]+(f|frame)?[-_.]*$')


def _check_folder(name: str, folder: str | None) -> None:
    if not os.path.isdir(folder or ''):
        raise UserError(
            f'data_prefix.{name} is {folder!r}, expected a folder.'
        )


class _Clips:
    """What makes a dataset of labelled pictures one of clips.

    Args:
        frames: Number T of frames of a clip.
        label_frame: Which of them has the label, from 0 on. None means the
            middle one, T // 2.
        frame_step: How far apart the numbers of two frames are.
        data_prefix: ``img_path`` and ``seg_map_path`` as in mmseg;
            ``frame_path``, the folder of the other frames, by default the
            pictures' own; or ``video_path`` instead of both: the folder of
            videos, of which ``NAME_000120.png`` or ``NAME_f000120.png``
            labels frame 120 of ``NAME.mp4``; ``ann_file`` may list their
            names.
        args, kwargs: Arguments of the dataset of pictures.

    Raises:
        UserError: A number is out of range, a folder or a listed mask is
            missing, no picture has any frame beside it, or a labelled frame
            is not in its video.
    """

    # How the masks' names begin -> names of videos that are called otherwise.
    video_names: dict[str, str] = {}

    def __init__(
        self,
        *args: Any,
        frames: int = 5,
        label_frame: int | None = None,
        frame_step: int = 1,
        data_prefix: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if label_frame is None:
            label_frame = frames // 2
        if frames < 1 or frame_step < 1 or not 0 <= label_frame < frames:
            raise UserError(
                'expected frames and frame_step of 1 or more and label_frame '
                f'of 0 to frames - 1, got {frames}, {frame_step} and '
                f'{label_frame}.'
            )
        self.frames, self.label_frame = frames, label_frame
        self.frame_step = frame_step
        data_prefix = dict(data_prefix or dict(img_path='', seg_map_path=''))
        super().__init__(*args, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the labelled pictures, each with the frames of its clip.

        Returns:
            The items of mmseg, with ``frame_paths`` and ``label_frame``.
        """
        if self.data_prefix.get('video_path'):
            items = self._of_videos()
        else:
            items = super().load_data_list()
            folder = self.data_prefix.get('frame_path')
            if folder:
                _check_folder('frame_path', folder)
            for item in items:
                path, root = item['img_path'], self.data_prefix['img_path']
                there = folder and os.path.join(
                    folder, os.path.dirname(os.path.relpath(path, root))
                )
                item['frame_paths'] = clip_paths(
                    *(path, self.frames, self.label_frame),
                    *(self.frame_step, there),
                )
        for item in items:
            item['label_frame'] = self.label_frame
        lone = [len(set(item['frame_paths'])) == 1 for item in items]
        if self.frames > 1 and lone and all(lone):
            raise UserError(
                f'none of {len(items)} pictures has another frame beside it: '
                f'looked for the name of {items[0]["img_path"]} with its last '
                f'number {self.frame_step} (frame_step) higher or lower, in '
                f'data_prefix.frame_path '
                f'({self.data_prefix.get("frame_path")}) or beside it.'
            )
        return items

    def _masks(self) -> list[Path]:
        """Masks of frames of videos: all, or those listed in ann_file."""
        folder = Path(self.data_prefix['seg_map_path'])
        if not self.ann_file:
            return sorted(folder.rglob(f'*{self.seg_map_suffix}'))
        if not os.path.isfile(self.ann_file):
            raise UserError(f'ann_file {self.ann_file} does not exist.')
        names = map(str.strip, list_from_file(self.ann_file))
        masks = [folder / f'{n}{self.seg_map_suffix}' for n in names if n]
        for mask in masks:
            if not mask.is_file():
                raise UserError(f'{self.ann_file} names {mask}: not there.')
        return masks

    def _of_videos(self) -> list[dict]:
        for name in ('video_path', 'seg_map_path'):
            _check_folder(name, self.data_prefix.get(name))
        folder = Path(self.data_prefix['video_path'])
        videos = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in VIDEOS:
                if path.stem in videos:
                    raise UserError(
                        f'{path} and {videos[path.stem]}: expected one video '
                        'of a name.'
                    )
                videos[path.stem] = path
        items = []
        masks = self._masks()
        if not masks:
            raise UserError(
                f'no mask *{self.seg_map_suffix} in '
                f'{self.ann_file or self.data_prefix["seg_map_path"]}.'
            )
        for mask in masks:
            numbered = NUMBERED.fullmatch(
                mask.name.removesuffix(self.seg_map_suffix)
            )
            name = numbered and numbered[1].rstrip('_-.')
            if numbered and name not in videos:
                name = BETWEEN.sub('', numbered[1])
                name = self.video_names.get(name, name)
            if name not in videos:
                raise UserError(
                    f'{mask} labels no frame of a video in {folder}: expected '
                    'a name such as NAME_000120 for frame 120 of NAME.mp4.'
                )
            video, number = videos[name], int(numbered[2])
            total = range(count_frames(video))
            if number not in total:
                raise UserError(
                    f'{mask} labels frame {number}, but {video} ends after '
                    f'{len(total)} frames.'
                )

            def find(index: int, video=video, total=total) -> str | None:
                return frame_path(video, index) if index in total else None

            label = find(number)
            items.append(
                dict(
                    img_path=label,
                    seg_map_path=str(mask),
                    label_map=self.label_map,
                    reduce_zero_label=self.reduce_zero_label,
                    seg_fields=[],
                    frame_paths=outward(
                        *(label, number, self.frames, self.label_frame),
                        *(self.frame_step, find),
                    ),
                )
            )
        return items


@DATASETS.register_module()
class ClipDataset(_Clips, BaseSegDataset):
    """Clips of any kind.

    The arguments are those of :class:`_Clips` and of mmseg's
    ``BaseSegDataset``.
    """


@DATASETS.register_module()
class ClipFolderDataset(_Clips, FolderDataset):
    """Clips in a folder with ``dataset.json``.

    The arguments are those of :class:`_Clips` and of :class:`FolderDataset`.
    """


@DATASETS.register_module()
class CamVidClipDataset(_Clips, CamVidDataset):
    """Clips of CamVid.

    The stills are a second apart. ``tools/dataset_converters/
    camvid_frames.py`` takes the frames around them out of the four videos.

    The arguments are those of :class:`_Clips` and of :class:`CamVidDataset`.
    """

    video_names = VIDEO_NAMES
