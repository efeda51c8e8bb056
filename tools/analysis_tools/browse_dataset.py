# Copyright (c) mmseg_attn contributors.
"""Draw samples of a dataset as its pipeline leaves them, with their labels.

Each PNG shows what the model gets, before its data preprocessor normalizes
and pads it, and the same with its label map over it, of a detector with its
boxes and masks. Of pictures that a test pipeline resizes, the label map is
resized along.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import DictAction
from mmengine.runner import set_random_seed
from mmengine.structures import BaseDataElement, InstanceData
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from mmseg_attn.configs import load_config
from mmseg_attn.errors import UserError, run_command
from mmseg_attn.files import whole
from mmseg_attn.progress import quiet_hosts, quiet_imports

with quiet_imports():
    from mmseg_attn.apis.tasks import (
        CLIPS,
        DETECTOR,
        SEGMENTOR,
        check_task,
        task_of,
    )
    from mmseg_attn.engine.config_errors import check_installed
    from mmseg_attn.engine.data_checks import (
        check_instances,
        check_output_folder,
        check_paths,
    )
    from mmseg_attn.engine.runner import build_dataset
    from mmseg_attn.engine.samples import load_sample
    from mmseg_attn.visualization.instances import InstancePainter
    from mmseg_attn.visualization.overlay import (
        Legend,
        as_bgr8,
        make_palette,
        overlay,
    )

SOFTWARE = 'mmseg_attn browse_dataset'  # how a PNG is known as its own
SMALLEST = 384  # height of what is shown, so that a legend fits


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config', help='config file, or name of a packaged config'
    )
    parser.add_argument(
        '--out', type=Path, required=True, help='folder for the pictures'
    )
    parser.add_argument(
        '--split',
        choices=['train', 'val', 'test'],
        default='train',
        help='(default: train)',
    )
    parser.add_argument(
        '--number', type=int, default=12, help='of samples (default: 12)'
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the choice of samples and of their augmentation (default: 0)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change entries of the config, e.g. '
        'train_dataloader.dataset.data_root=data/mine',
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.number < 1:
        raise UserError(f'--number must be 1 or more, got {args.number}.')
    cfg = load_config(args.config, args.cfg_options)
    check_task(cfg, SEGMENTOR, CLIPS, DETECTOR)
    check_installed(cfg)
    check_output_folder(cfg, args.out)
    loader = f'{args.split}_dataloader'
    check_paths(cfg, loader)
    for path, report in check_instances(cfg, loader).items():
        for line in report.warnings():
            print(f'Note: {path}: {line}')
    with quiet_hosts():
        dataset = build_dataset(cfg, loader)
    set_random_seed(args.seed)
    number = min(args.number, len(dataset))
    chosen = np.random.choice(len(dataset), number, replace=False)
    targets = {
        index: args.out / f'{args.split}_{index:06d}.png'
        for index in sorted(chosen.tolist())
    }
    for path in targets.values():
        check_own(path)
    draw = Instances if task_of(cfg) is DETECTOR else Labels
    painter = draw(dataset.metainfo)
    failed = 0
    for index, path in targets.items():
        try:
            sample = load_sample(dataset, index)
            source = save(path, painter, sample)
        except UserError as error:
            print(f'Error: {" ".join(str(error).split())}', file=sys.stderr)
            failed += 1
        else:
            print(f'{path}: {source}')
    print(
        f'{number - failed} of {len(dataset)} samples drawn'
        + (f', {failed} could not be (see above)' if failed else '')
    )
    return int(failed > 0)


def check_own(path: Path) -> None:
    """Refuse to replace what this tool did not write."""
    if not path.exists():
        return
    try:
        with Image.open(path) as image:
            own = image.info.get('Software') == SOFTWARE
    except (UnidentifiedImageError, OSError):
        own = False
    if not own:
        raise UserError(
            f'{path} exists and was not written by this tool: name another '
            'folder with --out, or move it away.'
        )


class Labels:
    """Draws label maps in the colours of their dataset.

    Args:
        metainfo: Of the dataset, with its ``classes`` and ``palette``.
    """

    def __init__(self, metainfo: dict) -> None:
        classes, self.palette = with_ignored(metainfo)
        self.legend = Legend(classes, self.palette)

    def __call__(
        self, picture: np.ndarray, data: BaseDataElement
    ) -> np.ndarray:
        """The picture, the same under its labels, and a legend."""
        if 'gt_sem_seg' not in data:
            raise UserError(
                f'{data.img_path} comes without a label map from the '
                'pipeline: expected one with LoadAnnotations, of a '
                'segmentation dataset.'
            )
        mask = data.gt_sem_seg.data[0].numpy()
        mask = np.minimum(mask, len(self.palette) - 1).astype(np.uint8)
        picture, mask = map(enlarge, (picture, mask))
        painted = overlay(picture, mask, self.palette, 0.6)
        return self.legend.add(side_by_side(picture, painted), np.unique(mask))


class Instances:
    """Draws boxes and masks in the colours of their dataset.

    Args:
        metainfo: Of the dataset, with its ``classes`` and ``palette``.
    """

    def __init__(self, metainfo: dict) -> None:
        classes, palette = with_ignored(metainfo)
        self.ignored = len(classes) - 1
        self.paint = InstancePainter(
            dict(classes=classes, palette=palette), 0.6
        )

    def __call__(
        self, picture: np.ndarray, data: BaseDataElement
    ) -> np.ndarray:
        """The picture, and the same with its instances, also of crowds."""
        from mmdet.structures.bbox import get_box_tensor

        if 'gt_instances' not in data or 'bboxes' not in data.gt_instances:
            raise UserError(
                f'{data.img_path} comes without boxes from the pipeline: '
                'expected one with LoadAnnotations.'
            )
        ignored = data.ignored_instances
        ignored.labels = torch.full_like(ignored.labels, self.ignored)
        instances = InstanceData.cat([data.gt_instances, ignored])
        enlarged = enlarge(picture)
        times = len(enlarged) / len(picture)
        instances.bboxes = times * get_box_tensor(instances.bboxes)
        if 'masks' in instances:
            instances.masks = instances.masks.resize(enlarged.shape[:2])
        return side_by_side(enlarged, self.paint(enlarged, instances))


def with_ignored(metainfo: dict) -> tuple[tuple[str, ...], list]:
    """Classes and palette, at last of what has no class or is ignored."""
    classes = metainfo['classes']
    palette = metainfo.get('palette') or make_palette(len(classes))
    palette = [list(colour) for colour in palette[: len(classes)]]
    return (*classes, 'ignored'), [*palette, unlike(palette)]


def enlarge(image: np.ndarray) -> np.ndarray:
    """A small one a whole number of times."""
    times = -(-SMALLEST // len(image))
    size = [side * times for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)


def side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    gap = np.full((len(left), 8, 3), 255, np.uint8)
    return np.hstack([left, gap, right])


def unlike(palette: Sequence[Sequence[int]]) -> list[int]:
    """The colour that is farthest from all of a palette."""
    colours = np.stack(np.meshgrid(*[(0, 128, 255)] * 3), -1).reshape(-1, 3)
    distances = np.linalg.norm(colours[:, None] - np.array(palette), axis=-1)
    return colours[distances.min(1).argmax()].tolist()


def save(path: Path, painter: Labels | Instances, sample: dict) -> str:
    """Draw a sample and return the path of its picture."""
    data = sample['data_samples']
    picture = sample['inputs']
    if picture.ndim == 4:  # a clip
        picture = picture[:, data.label_frame]
    picture = as_bgr8(picture.numpy().transpose(1, 2, 0))
    drawn = painter(picture, data)
    about = PngInfo()
    about.add_text('Software', SOFTWARE)
    with whole(path) as partial:
        Image.fromarray(drawn[..., ::-1]).save(partial, pnginfo=about)
    return data.img_path


if __name__ == '__main__':
    sys.exit(run_command(main))
