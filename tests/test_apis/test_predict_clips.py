# Copyright (c) mmseg_attn contributors.
"""A model for clips on videos, folders of frames and single pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from in_process import run_script
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from mmseg_attn.__main__ import main
from mmseg_attn.apis import load_model, make_predictor
from mmseg_attn.datasets.scenes.clips import write_clips
from mmseg_attn.errors import UserError
from mmseg_attn.video import read_frame, write_video

ROOT = Path(__file__).parents[2]
BROWSE = 'tools/analysis_tools/browse_dataset.py'
CONFIG = ROOT / 'configs/demo/ccnet3d-t5_r18-s4_1xb8-2k_demo-clips-96x96.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A checkpoint of random weights, and a video of noise."""
    folder = tmp_path_factory.mktemp('clips')
    cfg = Config.fromfile(CONFIG)
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.decode_head.conv_seg.weight.data.normal_(0, 0.1)
    torch.save({'state_dict': model.state_dict()}, folder / 'weights.pth')
    rng = np.random.default_rng(0)
    with write_video(folder / 'noise.mp4', 10) as video:
        for _ in range(9):
            coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            video.write(coarse.repeat(8, 0).repeat(8, 1))
    return folder


def predictor(folder, **dataset):
    cfg = Config.fromfile(CONFIG)
    cfg.test_dataloader.dataset.update(dataset)
    cfg.model.label_frame = dataset.get('label_frame')
    model = load_model(cfg, str(folder / 'weights.pth'), device='cpu')
    return make_predictor(model)


def frames(number, height=48, width=64, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for _ in range(number)
    ]


@pytest.mark.parametrize(
    ('length', 'options', 'slide'),
    [
        (9, {}, False),
        (3, {}, False),  # shorter than a clip
        (1, {}, False),
        (8, dict(frames=3, frame_step=2), False),
        (6, dict(frames=1), False),
        (6, dict(frames=4), False),
        (7, dict(label_frame=0), False),
        (7, dict(frames=3, frame_step=2, label_frame=2), False),
        (6, {}, True),
    ],
)
def test_streaming_is_clip_by_clip(folder, length, options, slide):
    """The logits to 1e-5, and beyond the ends the edge frames."""
    runs = predictor(folder, **options)
    at, size, step = runs.clip.label_frame, runs.clip.frames, runs.clip.step
    assert at == options.get('label_frame', size // 2)
    if slide:
        runs.model.test_cfg.update(
            mode='slide', crop_size=(48, 40), stride=(48, 24)
        )
    video = frames(length)
    logits = []
    postprocess = runs.model.postprocess_result
    runs.model.postprocess_result = lambda found, samples: (
        logits.append(found),
        postprocess(found, samples),
    )[1]
    streamed = list(runs.stream(iter(video)))
    assert len(streamed) == len(logits) == length
    for number, (picture, mask) in enumerate(streamed):
        assert picture is video[number]
        around = [
            min(max(number + step * (i - at), 0), length - 1)
            for i in range(size)
        ]
        ready = [runs.prepare(video[n]).data for n in around]
        clip = torch.cat([data['inputs'] for data in ready], dim=1)
        sample = ready[at]['data_samples']
        sample.set_metainfo(dict(label_frame=at))
        with torch.no_grad():
            (expected,) = runs.model.test_step(
                dict(inputs=[clip], data_samples=[sample])
            )
        error = logits[number][0] - logits[-1][0]
        assert error.abs().max() <= 1e-5
        assert (mask != expected.pred_sem_seg.data[0].numpy()).mean() < 1e-3


def test_other_frames_count(folder):
    """A frame's classes change with its neighbours."""
    runs = predictor(folder)
    video = frames(5)
    changed = [*video[:3], *frames(2, seed=1)]
    first = [mask for _, mask in runs.stream(video)]
    second = [mask for _, mask in runs.stream(changed)]
    assert np.array_equal(first[0], second[0])
    assert (first[2] != second[2]).any()


def test_a_video_that_changes(folder):
    runs = predictor(folder)
    video = [*frames(4), *frames(1, height=40)]
    with pytest.raises(UserError, match='frame 4 is 64 x 40 pixels, those'):
        list(runs.stream(video))


def command(folder, *arguments):
    weights = str(folder / 'weights.pth')
    arguments = [str(argument) for argument in arguments]
    return main(
        ['predict', str(CONFIG), weights, *arguments, '--device', 'cpu']
    )


def test_a_video(folder):
    """Every frame, in order; the masks are those of the stream."""
    out = folder / 'out'
    video = folder / 'noise.mp4'
    options = ('--out', out, '--save', 'overlay', 'mask', '--no-legend')
    assert command(folder, video, *options) == 0
    capture = cv2.VideoCapture(str(video))
    read = [capture.read()[1] for _ in range(9)]
    expected = [mask for _, mask in predictor(folder).stream(read)]
    for number, mask in enumerate(expected):
        saved = Image.open(out / f'mask/noise/{number:06d}.png')
        assert np.array_equal(saved, mask)
    capture = cv2.VideoCapture(str(out / 'overlay/noise.mp4'))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 9


def test_a_folder_of_frames(folder, tmp_path):
    """Neighbours by number; a picture for itself is a clip of its own."""
    video = frames(4)
    (tmp_path / 'in').mkdir()
    for number, frame in enumerate(video):
        cv2.imwrite(str(tmp_path / f'in/f{number + 8}.png'), frame)
    cv2.imwrite(str(tmp_path / 'in/single.png'), video[0])
    options = ('--out', tmp_path / 'out', '--save', 'mask')
    assert command(folder, tmp_path / 'in', *options) == 0
    runs = predictor(folder)
    for number, (_, mask) in enumerate(runs.stream(video)):
        saved = Image.open(tmp_path / f'out/mask/f{number + 8}.png')
        assert (np.asarray(saved) != mask).mean() < 1e-3
    ((_, alone),) = runs.stream(video[:1])
    saved = Image.open(tmp_path / 'out/mask/single.png')
    assert (np.asarray(saved) != alone).mean() < 1e-3


def test_frames_in_another_folder(folder, tmp_path):
    """Those of the config's test pictures are where the dataset has them."""
    video = frames(3)
    for place, numbered in (('images', (1,)), ('frames', (0, 2))):
        (tmp_path / place / 'sub').mkdir(parents=True)
        for number in numbered:
            path = tmp_path / place / f'sub/f{number}.png'
            cv2.imwrite(str(path), video[number])
    prefix = dict(img_path='images', frame_path='frames')
    options = dict(data_root=str(tmp_path), data_prefix=prefix, frames=3)
    runs = predictor(folder, **options)
    labelled = tmp_path / 'images/sub/f1.png'
    found = runs.prepare(labelled).data['inputs']
    for place, frame in enumerate(video):
        assert np.array_equal(found[:, place], frame.transpose(2, 0, 1))
    # What is no picture of the dataset has its neighbours beside it.
    with pytest.warns(UserWarning, match=r'f1\.png has no other frame beside'):
        predictor(folder, frames=3).prepare(labelled)


def test_no_test_time_augmentation(folder):
    with pytest.raises(SystemExit, match='scales in the command test alone'):
        command(folder, folder / 'noise.mp4', '--tta', '--out', folder / 'o')


def test_memory_does_not_grow(folder):
    """As many maps at once for a long video as for a short one."""
    runs = predictor(folder)
    alive, most = set(), []

    encode = runs.model.encode_frame

    def counted(inputs):
        x, reduced = encode(inputs)
        token = object()
        alive.add(id(token))
        x.token = _Token(alive, token)
        most.append(len(alive))
        return x, reduced

    runs.model.encode_frame = counted
    picture = frames(1)[0]
    for _ in runs.stream(picture.copy() for _ in range(40)):
        pass
    assert len(most) == 40 and max(most) == most[4] == 5


class _Token:
    """Leaves the set when it is forgotten."""

    def __init__(self, alive, token):
        self.alive, self.token = alive, token

    def __del__(self):
        self.alive.discard(id(self.token))


def test_training_and_test(tmp_path):
    """The tools serve clips."""
    write_clips(tmp_path / 'data', train=8, val=4)
    options = [
        *('train_cfg.max_iters=2', 'train_cfg.val_interval=2'),
        *('default_hooks.checkpoint.interval=2', 'max_iters=2'),
        'train_dataloader.batch_size=4',
        *(
            f'{part}_dataloader.dataset.data_root={tmp_path / "data"}'
            for part in ('train', 'val', 'test')
        ),
    ]

    def tool(name, *arguments):
        done = run_script(
            *(ROOT / 'tools' / name, CONFIG, *arguments),
            *('--work-dir', tmp_path / name, '--cfg-options', *options),
        )
        text = done.stdout + done.stderr
        assert done.returncode == 0, text[-3000:]
        return text

    trained = tool('train.py')
    score = trained.rpartition('mIoU other frame: ')[2].split()[0]
    tested = tool(
        *('test.py', tmp_path / 'train.py/iter_2.pth'),
        *('--show-dir', tmp_path / 'shown'),
    )
    assert f'mIoU other frame: {score}' in tested
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 4
    shown = tmp_path / 'browsed'
    done = run_script(
        *(ROOT / BROWSE, CONFIG, '--out', shown, '--number', 2),
        *('--split', 'val', '--cfg-options', *options),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(shown.glob('*.png'))) == 2


def test_frames_of_a_video_are_written(folder, tmp_path):
    """test.py, where the labelled frames are in a video file."""
    (tmp_path / 'masks').mkdir()
    for number in (2, 5):
        path = tmp_path / f'masks/noise_{number:06d}.png'
        cv2.imwrite(str(path), np.zeros((48, 64), np.uint8))
    dataset = dict(
        _delete_=True,
        type='mmseg_attn.ClipDataset',
        metainfo=dict(
            classes=list('abcd'), palette=[[9 * i] * 3 for i in range(4)]
        ),
        data_prefix=dict(video_path=str(folder), seg_map_path='masks'),
        data_root=str(tmp_path),
        pipeline=Config.fromfile(CONFIG).test_pipeline,
    )
    config = tmp_path / 'videos.py'
    config.write_text(
        f'_base_ = {str(CONFIG)!r}\n'
        f'test_dataloader = dict(dataset={dataset!r})\n'
        "test_evaluator = dict(_delete_=True, type='IoUMetric')\n"
    )
    done = run_script(
        *(ROOT / 'tools/test.py', config, folder / 'weights.pth'),
        *('--work-dir', tmp_path / 'out', '--show-dir', tmp_path / 'shown'),
        *('--out', tmp_path / 'masks-out'),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    written = sorted(path.name for path in (tmp_path / 'masks-out').iterdir())
    assert written == ['noise#2.png', 'noise#5.png']
    drawn = sorted((tmp_path / 'shown').rglob('*.png'))
    assert len(drawn) == 2
    for path, number in zip(drawn, (2, 5), strict=True):
        picture = cv2.imread(str(path))[:, :64]
        frame = read_frame(folder / 'noise.mp4', number)
        assert np.corrcoef(picture.ravel(), frame.ravel())[0, 1] > 0.7


@pytest.mark.parametrize(
    'arguments',
    [
        ('worst', CONFIG, 'weights.pth'),
        ('attention', CONFIG, 'weights.pth', 'a.png', '--pixel', 3, 3),
    ],
)
def test_commands_for_pictures(folder, arguments, monkeypatch):
    monkeypatch.chdir(folder)
    cv2.imwrite('a.png', frames(1)[0])
    arguments = [*map(str, arguments), '--out', 'no.png']
    with pytest.raises(SystemExit, match='is of a segmentor for clips'):
        main(arguments)
