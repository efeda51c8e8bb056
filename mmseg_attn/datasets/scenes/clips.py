# Copyright (c) mmseg_attn contributors.
"""Demo scenes as clips, in which the labelled frame hides the flags."""

import json
from itertools import islice
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...files import whole
from ...png import write_png
from ...video import write_video
from .folder import check_empty
from .render import render
from .scene import CLASSES, PALETTE, VARIANTS, make_scenes

# How far away in time and space the thing is that tells the class.
GROUPS = {
    'other frame': CLASSES[1:3],
    'other frame, one hop': CLASSES[3:5],
    'other frame, two hops': CLASSES[5:],
}
# Frames of the video, in which the flags go dark every so often.
VIDEO_FRAMES, PERIOD, FPS = 60, 4, 10


def write_clips(
    out: str | Path,
    seed: int = 0,
    train: int = 640,
    val: int = 80,
    size: int = 96,
    frames: int = 5,
) -> None:
    """Write clips for ``ClipFolderDataset``.

    The scenes are those of :func:`write_folder`, but in the labelled frame
    the flags are as grey as the boxes; in the others they have their colour.
    (A quarter of the training clips has colours in all frames, so that a
    model knows them when it meets them in a video.) So the labelled frame
    tells no class but the background, and as with
    :func:`make_scenes` its mean IoU over the two classes of a kind is at most
    1/3. A flag is one hop along time away from its colour, a box two, a ring
    three.

    It writes the middle frame to ``images/{train,val}``, all of them to
    ``frames/{train,val}/CLIP_FRAME.png``, masks, ``dataset.json``, and
    ``video.mp4`` of one scene. The bytes, but for the video's, depend on the
    arguments alone.

    Args:
        out: Folder to write, made if missing.
        seed: Seed of the layouts.
        train: Number of training clips, a multiple of 4.
        val: Number of validation clips, a multiple of 4.
        size: Height and width in pixels, at least 84.
        frames: Frames of a clip, at least 2.

    Raises:
        UserError: A number or the size is not as above, or the folder holds
            more clips than it would then.
    """
    if frames < 2:
        raise UserError(
            f'got clips of {frames} frames, expected at least 2: the class '
            'is told by another frame'
        )
    out, label = Path(out), frames // 2
    for number in (train, val):
        next(make_scenes(seed, number, size))
    check_empty(out, train, val, f'_{label:03d}')
    scenes = make_scenes(seed, train + val, size)
    for split, number in (('train', train), ('val', val)):
        for kind in ('images', 'frames', 'masks'):
            (out / kind / split).mkdir(parents=True, exist_ok=True)
        for index, scene in enumerate(islice(scenes, number)):
            dark, mask = render(scene, lit=False)
            bright, _ = render(scene)
            # Whole fours, which differ in colours alone.
            lit = split == 'train' and index // VARIANTS % 4 == 3
            labelled = bright if lit else dark
            for frame in range(frames):
                picture = labelled if frame == label else bright
                name = f'{index:05d}_{frame:03d}.png'
                write_png(out / 'frames' / split / name, picture)
            name = f'{index:05d}_{label:03d}.png'
            write_png(out / 'images' / split / name, labelled)
            write_png(out / 'masks' / split / name, mask, PALETTE)
    # The second of a four has flags of two colours.
    val_scenes = islice(make_scenes(seed, train + val, size), train, None)
    scene = list(val_scenes)[1]
    bright, dark = (render(scene, lit)[0] for lit in (True, False))
    with (
        whole(out / 'video.mp4') as partial,
        write_video(partial, FPS) as video,
    ):
        for frame in range(VIDEO_FRAMES):
            picture = dark if frame % PERIOD == 2 else bright
            video.write(np.ascontiguousarray(picture[..., ::-1]))
    about = {'classes': CLASSES, 'palette': PALETTE, 'groups': GROUPS}
    text = json.dumps(about, indent=1) + '\n'
    with whole(out / 'dataset.json') as partial:
        partial.write_text(text, encoding='utf-8', newline='\n')
