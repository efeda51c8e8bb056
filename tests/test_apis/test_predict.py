# Copyright (c) mmseg_attn contributors.
import errno
import json
import os
import shutil
import struct
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import inference_model, init_model
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image
from tiny_segmentor import CLASSES, PALETTE, picture

from mmseg_attn.__main__ import main
from mmseg_attn.apis import predict as predict_in_memory
from mmseg_attn.apis.loading import load_model
from mmseg_attn.apis.predictors import Segmenter
from mmseg_attn.apis.tasks import make_predictor
from mmseg_attn.engine.runner import build_runner
from mmseg_attn.errors import UserError
from mmseg_attn.inference import outputs as outputs_module
from mmseg_attn.inference.batches import batches
from mmseg_attn.inference.jobs import find_jobs
from mmseg_attn.inference.results import check_frames
from mmseg_attn.inference.samples import Sample


@pytest.fixture
def predict(trained, tmp_path):
    """Run the command on inputs, into tmp_path/out; returns its code."""

    def run(*inputs, config=trained.config, checkpoint=trained.checkpoint):
        inputs = [str(text) for text in inputs]
        out = ['--out', str(tmp_path / 'out')]
        device = ['--device', 'cpu']
        model = [config, str(checkpoint)]
        return main(['predict', *out, *device, *model, *inputs])

    return run


@pytest.mark.parametrize('option', ['--right', '--calibration'])
def test_options_of_pairs(predict, trained, option):
    with pytest.raises(SystemExit, match='are for stereo networks'):
        predict(trained.config, option, trained.config)


def write(path, seed=0, **size):
    path.parent.mkdir(parents=True, exist_ok=True)
    image, mask = picture(seed, **size)
    cv2.imwrite(str(path), image)
    return mask


def write_video(path, frames, size=(48, 64), code='MJPG'):
    """Write frames of discs; returns their masks."""
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*code), 12.0, size[::-1]
    )
    masks = []
    for seed in range(frames):
        image, mask = picture(seed, *size)
        writer.write(image)
        masks.append(mask)
    writer.release()
    return masks


def read_frames(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def host_model(config, trained):
    """The host's own way, with the same weights."""
    model = init_model(config, None, device='cpu')
    # mmengine 0.10.7 cannot load its own checkpoints with torch 2.6.
    saved = torch.load(trained.checkpoint, weights_only=False)
    model.load_state_dict(saved['state_dict'])
    return model


def read_mask(path):
    return np.array(Image.open(path))


def iou(a, b):
    return np.sum((a == 1) & (b == 1)) / np.sum((a == 1) | (b == 1))


def files(folder):
    return sorted(
        str(path.relative_to(folder))
        for path in Path(folder).rglob('*')
        if path.is_file() and path.name != 'predict.json'
    )


def test_folder(predict, tmp_path, trained):
    names = ['a.png', 'deep er/b ü.png', 'deep er/c.PNG', 'wide.png']
    sizes = [(64, 64), (80, 64), (64, 64), (60, 151)]
    truths = {
        name: write(tmp_path / 'in' / name, seed, height=h, width=w)
        for seed, (name, (h, w)) in enumerate(zip(names, sizes, strict=True))
    }
    (tmp_path / 'in' / 'notes.txt').write_text('no picture')
    (tmp_path / 'in' / '._a.png').write_text('resource fork')
    (tmp_path / 'in' / '.thumbnails').mkdir()
    write(tmp_path / 'in' / '.thumbnails' / 'a.png')
    assert predict(tmp_path / 'in') == 0
    assert files(tmp_path / 'out') == sorted(
        [f'mask/{n.rsplit(".", 1)[0]}.png' for n in names]
        + [f'overlay/{n.rsplit(".", 1)[0]}.jpg' for n in names]
    )

    host = host_model(trained.config, trained)
    for name, truth in truths.items():
        path = (tmp_path / 'out' / 'mask' / name).with_suffix('.png')
        mask = read_mask(path)
        result = inference_model(host, str(tmp_path / 'in' / name))
        argmax = result.seg_logits.data.argmax(0).numpy()
        np.testing.assert_array_equal(mask, argmax)
        assert iou(mask, truth) > 0.8  # it has learned its task
        # As labels: MMSegmentation reads the indices back, a viewer colours.
        results = dict(
            seg_map_path=str(path), seg_fields=[], reduce_zero_label=False
        )
        np.testing.assert_array_equal(
            LoadAnnotations()(results)['gt_seg_map'], mask
        )
        np.testing.assert_array_equal(
            np.array(Image.open(path).convert('RGB')),
            np.array(PALETTE, np.uint8)[mask],
        )


def test_config_written_by_a_runner(predict, tmp_path, trained):
    """It checks labels, of which there are none here."""
    write(tmp_path / 'in/a.png')
    assert predict(tmp_path / 'in') == 0
    plain = read_mask(tmp_path / 'out/mask/a.png')
    cfg = Config.fromfile(trained.config)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.load_from = trained.checkpoint
    build_runner(cfg, train=False)
    config = str(tmp_path / 'work' / Path(trained.config).name)
    assert 'CheckAnnotations' in Path(config).read_text()
    assert predict(tmp_path / 'in', '--overwrite', config=config) == 0
    written = read_mask(tmp_path / 'out/mask/a.png')
    np.testing.assert_array_equal(written, plain)


def test_real_pictures(predict, tmp_path):
    root = os.environ.get('MMSEG_ATTN_REAL_DATA')
    if not root:
        pytest.skip('MMSEG_ATTN_REAL_DATA names no folder of real pictures')
    folder = Path(root, 'horses', 'images', 'val')
    assert predict(folder, '--batch-size', '4') == 0
    pictures = sorted(folder.glob('*.jpg'))
    assert len(pictures) == len(files(tmp_path / 'out/mask')) > 50
    for path in pictures:
        mask = Image.open(tmp_path / f'out/mask/{path.stem}.png')
        shown = Image.open(tmp_path / f'out/overlay/{path.name}')
        with Image.open(path) as source:
            assert mask.size == source.size
            assert shown.height == source.height


def test_overlay(predict, tmp_path):
    write(tmp_path / 'a.png')
    options = ['--overlay-format', 'png', '--opacity', '0.25', '--save']
    assert predict(tmp_path / 'a.png', *options, 'overlay', 'mask') == 0
    shown = np.array(Image.open(tmp_path / 'out/overlay/a.png'))
    mask = read_mask(tmp_path / 'out/mask/a.png')
    source = np.array(Image.open(tmp_path / 'a.png'), float)
    expected = 0.75 * source + 0.25 * np.array(PALETTE)[mask]
    assert shown.shape[0] == 64 and shown.shape[1] > 64  # the legend
    assert np.abs(shown[:, :64] - expected).max() <= 1
    for colour in PALETTE:
        assert (shown[:, 64:] == colour).all(-1).any()

    out = tmp_path / 'plain'
    assert predict(tmp_path / 'a.png', '--no-legend', '-o', out) == 0
    assert Image.open(out / 'overlay/a.jpg').size == (64, 64)


def test_batches_give_the_same(predict, tmp_path, monkeypatch):
    for seed in range(7):
        size = dict(width=64 if seed in (2, 3, 5, 6) else 80)
        write(tmp_path / 'in' / f'{seed}.png', seed, **size)
    assert predict(tmp_path / 'in') == 0
    shutil.move(tmp_path / 'out', tmp_path / 'single')
    counts, segment = [], Segmenter.__call__

    def counted(self, samples):
        counts.append(len(samples))
        return segment(self, samples)

    monkeypatch.setattr(Segmenter, '__call__', counted)
    assert predict(tmp_path / 'in', '--batch-size', '3') == 0
    assert counts == [3, 3, 1]  # where each size follows another
    names = files(tmp_path / 'single')
    assert len(names) == 14 and files(tmp_path / 'out') == names
    for name in names:
        single = (tmp_path / 'single' / name).read_bytes()
        assert (tmp_path / 'out' / name).read_bytes() == single, name


def test_order_of_a_list(trained):
    model = load_model(trained.config, trained.checkpoint, device='cpu')
    shapes = [(64, 64), (64, 80), (64, 64), (80, 64), (64, 80)]
    pictures = [picture(seed, *shape)[0] for seed, shape in enumerate(shapes)]
    found = predict_in_memory(model, pictures, batch_size=2)
    for image, mask in zip(pictures, found, strict=True):
        np.testing.assert_array_equal(mask, predict_in_memory(model, image))


def test_many_sizes_wait_in_bounded_memory():
    """The size that waits longest goes first, and nothing is lost."""
    alive = weakref.WeakSet()

    def samples():
        for number in range(100):
            sample = Sample(None, {'inputs': torch.zeros(number % 50, 1)})
            alive.add(sample)
            assert len(alive) <= 2 * 8 + 2
            yield number, sample
            del sample

    numbers = [[key for key, _ in batch] for batch in batches(samples(), 2)]
    assert numbers[0] == [0]
    assert sorted(sum(numbers, [])) == list(range(100))


def test_kinds_of_pictures(predict, tmp_path):
    image, _ = picture(0, 64, 96)
    folder = tmp_path / 'in'
    folder.mkdir()
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    alpha = np.full(image.shape[:2], 128, np.uint8)
    same = {
        'plain': image,
        'alpha': np.dstack([image, alpha]),
        'deep': image.astype(np.uint16) * 257,
    }
    for name, array in same.items():
        assert cv2.imwrite(f'{folder}/{name}.png', array)
    cv2.imwrite(f'{folder}/grey.png', grey)
    cv2.imwrite(f'{folder}/tagged.tif', image)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    lying = Image.fromarray(image[..., ::-1]).transpose(
        Image.Transpose.ROTATE_90
    )
    lying.save(f'{folder}/turned.png', exif=exif)
    assert predict(folder) == 0
    masks = {p.stem: read_mask(p) for p in (tmp_path / 'out/mask').iterdir()}
    assert set(masks) == {*same, 'grey', 'tagged', 'turned'}
    for name in ('alpha', 'deep', 'tagged', 'turned'):
        np.testing.assert_array_equal(masks[name], masks['plain'], name)
    assert masks['grey'].shape == (64, 96)


def test_pictures_of_twelve_bits(predict, tmp_path, capsys, trained):
    image, _ = picture(0)
    path = tmp_path / 'in/a.tif'
    path.parent.mkdir()
    cv2.imwrite(str(path), image.astype(np.uint16) * 16)
    assert predict(path) == 1
    error = ' '.join(capsys.readouterr().err.split())
    assert 'a.tif has 16 bits per value, but its largest value is' in error
    assert '--depth' in error
    assert predict('--depth', '12', path) == 0
    cv2.imwrite(str(tmp_path / 'in/b.png'), image)
    assert predict('--overwrite', '--depth', '12', tmp_path / 'in') == 0
    twelve, eight = (
        read_mask(tmp_path / f'out/mask/{name}.png') for name in 'ab'
    )
    assert (twelve == eight).mean() > 0.999
    model = load_model(trained.config, trained.checkpoint, device='cpu')
    for step in model.cfg.test_dataloader.dataset.pipeline:
        if step.type == 'LoadImageFromFile':
            step.color_type = 'unchanged'
    with pytest.raises(UserError, match='loads them unchanged, with LoadPic'):
        make_predictor(model, depth=12)


def break_files(folder):
    write(folder / 'a.png')
    whole = (folder / 'a.png').read_bytes()
    (folder / 'b_cut.png').write_bytes(whole[: len(whole) // 2])
    jpeg = cv2.imencode('.jpg', picture(1)[0])[1].tobytes()
    (folder / 'c_cut.jpg').write_bytes(jpeg[: len(jpeg) // 2])
    (folder / 'd_text.png').write_text('not a picture')
    (folder / 'e_empty.png').write_bytes(b'')
    (folder / 'f_video.mp4').write_bytes(b'not a video')
    write(folder / 'g.png')


def test_bad_files_are_passed_over(predict, tmp_path, capsys):
    break_files(tmp_path / 'in')
    assert predict(tmp_path / 'in', '--batch-size', '2') == 1
    assert files(tmp_path / 'out') == [
        'mask/a.png',
        'mask/g.png',
        'overlay/a.jpg',
        'overlay/g.jpg',
    ]
    said = capsys.readouterr()
    for name in ('b_cut', 'c_cut', 'd_text', 'e_empty', 'f_video'):
        assert name in said.err
    assert '2 of 7 inputs done' in said.out and '5 failed' in said.out


def test_stop_on_error(predict, tmp_path):
    break_files(tmp_path / 'in')
    with pytest.raises(SystemExit, match='b_cut.png cannot be read.*goes on'):
        predict(tmp_path / 'in', '--stop-on-error')
    assert files(tmp_path / 'out') == ['mask/a.png', 'overlay/a.jpg']


def stamps(folder):
    return {
        name: os.stat(f'{folder}/{name}').st_mtime_ns for name in files(folder)
    }


def test_rerun_goes_on(predict, tmp_path, capsys, trained):
    for seed in range(3):
        write(tmp_path / 'in' / f'{seed}.png', seed)
    assert predict(tmp_path / 'in') == 0
    before = stamps(tmp_path / 'out')
    (tmp_path / 'out/mask/1.png').unlink()
    assert predict(tmp_path / 'in') == 0
    assert '1 of 3 inputs done' in capsys.readouterr().out
    after = stamps(tmp_path / 'out')
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {'mask/1.png', 'overlay/1.jpg'}

    # The same weights, by another name.
    copied = shutil.copy(trained.checkpoint, tmp_path / 'copied.pth')
    assert predict(tmp_path / 'in', checkpoint=copied) == 0
    assert '3 were done before' in capsys.readouterr().out
    assert stamps(tmp_path / 'out') == after

    with pytest.raises(SystemExit, match=r'other settings \(opacity\)'):
        predict(tmp_path / 'in', '--opacity', '0.1')
    assert stamps(tmp_path / 'out') == after
    assert predict(tmp_path / 'in', '--opacity', '0.1', '--overwrite') == 0
    redone = stamps(tmp_path / 'out')
    assert all(redone[name] > after[name] for name in after)


def test_interrupted_overwrite_leaves_no_mixture(
    predict, tmp_path, monkeypatch
):
    for seed in range(3):
        write(tmp_path / 'in' / f'{seed}.png', seed)
    assert predict(tmp_path / 'in', '--opacity', '0') == 0
    before = stamps(tmp_path / 'out')
    save = outputs_module.save_mask

    def interrupted(path, *args):
        save(path, *args)
        if path.name == '.1.partial.png':
            path.write_bytes(path.read_bytes()[:20])
            raise KeyboardInterrupt

    monkeypatch.setattr(outputs_module, 'save_mask', interrupted)
    options = [tmp_path / 'in', '--opacity', '1']
    with pytest.raises(SystemExit) as end:
        predict(*options, '--overwrite')
    assert end.value.code == 130
    now = stamps(tmp_path / 'out')  # whole files only, old or new
    assert set(now) == set(before)
    assert {n for n in now if now[n] != before[n]} == {
        'mask/0.png',
        'overlay/0.jpg',
    }
    monkeypatch.undo()
    assert predict(*options) == 0  # goes on, and redoes what is of before
    last = stamps(tmp_path / 'out')
    assert last['mask/0.png'] == now['mask/0.png']
    assert last['mask/1.png'] > before['mask/1.png']
    assert last['overlay/2.jpg'] > before['overlay/2.jpg']


def test_full_disk(predict, tmp_path, monkeypatch):
    for seed in range(3):
        write(tmp_path / 'in' / f'{seed}.png', seed)
    save = outputs_module.save_mask

    def full(path, *args):
        save(path, *args)
        if path.name == '.1.partial.png':
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))

    monkeypatch.setattr(outputs_module, 'save_mask', full)
    with pytest.raises(SystemExit, match='No space left.*Stopped after 1'):
        predict(tmp_path / 'in')
    assert files(tmp_path / 'out') == ['mask/0.png', 'overlay/0.jpg']


def test_out_of_memory(predict, tmp_path, monkeypatch, capsys):
    for seed in range(5):
        write(tmp_path / 'in' / f'{seed}[/b].png', seed)
    segment, most = Segmenter.__call__, [1]

    def limited(self, samples):
        if len(samples) > most[0]:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return segment(self, samples)

    monkeypatch.setattr(Segmenter, '__call__', limited)
    # One at a time fits, so nothing is lost.
    assert predict(tmp_path / 'in', '--batch-size', '3') == 0
    assert len(files(tmp_path / 'out')) == 10
    most[0] = 0
    assert predict(tmp_path / 'in', '--overwrite') == 1
    assert 'does not fit into memory; try --slide' in capsys.readouterr().err


def test_foreign_files_are_kept(predict, tmp_path):
    write(tmp_path / 'a.png')
    mine = tmp_path / 'out/mask/a.png'
    mine.parent.mkdir(parents=True)
    mine.write_text('labels made by hand')
    with pytest.raises(SystemExit, match='not written by this command'):
        predict(tmp_path / 'a.png')
    assert mine.read_text() == 'labels made by hand'

    assert predict(tmp_path / 'a.png', '--overwrite') == 0

    # Also between results: put there from elsewhere, with its old date.
    shutil.rmtree(tmp_path / 'out')
    assert predict(tmp_path / 'a.png') == 0
    write(tmp_path / 'c.png')
    mine = tmp_path / 'out/mask/c.png'
    mine.write_text('labels made by hand')
    os.utime(mine, (1e9, 1e9))
    with pytest.raises(SystemExit, match='c.png is older than'):
        predict(tmp_path / 'c.png')
    assert mine.read_text() == 'labels made by hand'

    # A folder where a picture is to be is nothing to be replaced.
    folder = tmp_path / 'out/overlay/d.jpg'
    folder.mkdir()
    (folder / 'mine').write_text('notes')
    write(tmp_path / 'd.png')
    assert predict(tmp_path / 'd.png', '--overwrite') == 1
    assert (folder / 'mine').read_text() == 'notes'

    write(tmp_path / 'out/overlay/b.jpg')
    source = (tmp_path / 'out/overlay/b.jpg').read_bytes()
    with pytest.raises(SystemExit, match='would overwrite the input'):
        predict(tmp_path / 'out/overlay/b.jpg', '--overwrite')
    assert (tmp_path / 'out/overlay/b.jpg').read_bytes() == source


def test_results_are_no_inputs(predict, tmp_path):
    write(tmp_path / 'a.png')
    assert predict(tmp_path) == 0
    before = files(tmp_path)
    assert predict(tmp_path) == 0
    assert files(tmp_path) == before


def test_names_that_meet(predict, tmp_path):
    write(tmp_path / 'one/a.png', 1)
    write(tmp_path / 'one/a.jpg', 2)
    assert predict(tmp_path / 'one') == 0
    assert files(tmp_path / 'out') == [
        'mask/a.jpg.png',
        'mask/a.png.png',
        'overlay/a.jpg.jpg',
        'overlay/a.png.jpg',
    ]
    shutil.rmtree(tmp_path / 'out')
    write(tmp_path / 'two/a.png', 3)
    with pytest.raises(SystemExit, match='would both be written'):
        predict(tmp_path / 'one/a.png', tmp_path / 'two/a.png')
    assert not (tmp_path / 'out').exists()


def test_globs_and_links(predict, tmp_path):
    for name in ('x/1.png', 'x/y/2.png', 'x/y/3.jpg'):
        write(tmp_path / name)
    (tmp_path / 'x/y/up').symlink_to(tmp_path / 'x')  # a loop
    (tmp_path / 'far').symlink_to(tmp_path / 'x/y')
    jobs = find_jobs([f'{tmp_path}/x/**/*.png'], tmp_path / 'o')
    masks = [job.data['mask'] for job in jobs]
    names = {str(mask.relative_to(tmp_path / 'o/mask')) for mask in masks}
    assert {'1.png', 'y/2.png'} <= names
    jobs = find_jobs([f'{tmp_path}/x'], tmp_path / 'o')
    assert len(jobs) == 3
    jobs = find_jobs([f'{tmp_path}/far'], tmp_path / 'o')
    assert len(jobs) == 3  # also what the link in it leads to


def write_gif(path, frames, size):
    pictures = [picture(seed, *size) for seed in range(frames)]
    images = [Image.fromarray(image[..., ::-1]) for image, _ in pictures]
    images[0].save(path, save_all=True, append_images=images[1:], duration=80)
    return [mask for _, mask in pictures]


@pytest.mark.parametrize(
    'name, write, size, fps',
    [
        ('clip.avi', write_video, (48, 64), 12),
        ('clip.gif', write_gif, (49, 63), 12.5),  # MP4 has even sizes only
    ],
)
def test_video(predict, tmp_path, name, write, size, fps):
    truths = write(tmp_path / name, 14, size)
    video = tmp_path / name
    assert predict(video, '--save', 'overlay', 'mask', '--no-legend') == 0
    frames, found = read_frames(tmp_path / 'out/overlay/clip.mp4')
    assert len(frames) == 14 and found == pytest.approx(fps)
    sources, _ = read_frames(video)
    height, width = sources[0].shape[:2]
    assert (height, width) == size
    assert frames[0].shape == (height + height % 2, width + width % 2, 3)
    masks = sorted((tmp_path / 'out/mask/clip').iterdir())
    assert [path.name for path in masks] == [f'{i:06d}.png' for i in range(14)]
    for path, frame, source, truth in zip(
        masks, frames, sources, truths, strict=True
    ):
        mask = read_mask(path)
        assert iou(mask, truth[:height, :width]) > 0.7
        colours = np.array(PALETTE)[:, ::-1][mask]
        drawn = 0.5 * source + 0.5 * colours
        assert np.abs(frame[:height, :width] - drawn).mean() < 12  # lossy

    assert predict(video, '--save', 'overlay', 'mask', '--no-legend') == 0


def test_video_in_bounded_memory(predict, tmp_path, monkeypatch):
    write_video(tmp_path / 'long.mp4', 120, code='mp4v')
    alive, most = weakref.WeakSet(), []
    prepare = Segmenter.prepare

    def counted(self, image):
        sample = prepare(self, image)
        alive.add(sample)
        most.append(len(alive))
        return sample

    monkeypatch.setattr(Segmenter, 'prepare', counted)
    assert predict(tmp_path / 'long.mp4', '--batch-size', '4') == 0
    assert len(most) == 120 and max(most) <= 2 * 4
    assert len(read_frames(tmp_path / 'out/overlay/long.mp4')[0]) == 120


def test_video_that_ends_early(predict, tmp_path, capsys):
    write_video(tmp_path / 'clip.avi', 30)
    whole = (tmp_path / 'clip.avi').read_bytes()
    (tmp_path / 'clip.avi').write_bytes(whole[: len(whole) // 2])
    count = len(read_frames(tmp_path / 'clip.avi')[0])
    assert 5 < count < 25
    for _ in range(2):  # It is not taken for done.
        assert predict(tmp_path / 'clip.avi') == 1
        said = capsys.readouterr().err
        assert f'only {count} of its 30 frames could be read' in said
        frames, _ = read_frames(tmp_path / 'out/overlay/clip_incomplete.mp4')
        assert len(frames) == count
        assert files(tmp_path / 'out') == ['overlay/clip_incomplete.mp4']


def test_video_with_gaps(predict, tmp_path):
    """Fewer frames than the file says, but up to its end."""
    path = tmp_path / 'clip.avi'
    write_video(path, 30)
    data = bytearray(path.read_bytes())
    index, frames = data.rfind(b'idx1') + 8, data.find(b'movi')
    for entry in range(index + 16 * 10, index + 16 * 20, 16):
        # The chunk of an empty frame, and its bytes as one of no meaning.
        offset, size = struct.unpack('<II', data[entry + 8 : entry + 16])
        chunk = frames + offset
        data[chunk + 4 : chunk + 16] = struct.pack(
            '<I4sI', 0, b'JUNK', size - 8
        )
        data[entry + 12 : entry + 16] = bytes(4)
    path.write_bytes(data)
    assert len(read_frames(path)[0]) == 20
    assert predict(path) == 0
    assert len(read_frames(tmp_path / 'out/overlay/clip.mp4')[0]) == 20


def test_interrupted_video_leaves_nothing(predict, tmp_path, monkeypatch):
    write_video(tmp_path / 'clip.mp4', 20, code='mp4v')
    prepare, calls = Segmenter.prepare, []

    def interrupted(self, image):
        calls.append(image)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return prepare(self, image)

    monkeypatch.setattr(Segmenter, 'prepare', interrupted)
    with pytest.raises(SystemExit) as end:
        predict(tmp_path / 'clip.mp4', '--save', 'overlay', 'mask')
    assert end.value.code == 130
    assert files(tmp_path / 'out') == []


def test_augmented(predict, tmp_path, trained):
    image, _ = picture(5)
    image[:, 32:] //= 2  # so that the flipped view differs
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    assert predict(tmp_path / 'a.png', '--tta') == 0
    host = host_model(trained.config, trained)
    host.cfg.test_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='PackSegInputs'),
    ]
    plain, flipped = (
        inference_model(host, np.ascontiguousarray(view)).seg_logits.data
        for view in (image, image[:, ::-1])
    )
    mean = plain.softmax(0) + flipped.softmax(0).flip(-1)
    mask = read_mask(tmp_path / 'out/mask/a.png')
    np.testing.assert_array_equal(mask, mean.argmax(0).numpy())


def test_sliding(predict, tmp_path, trained):
    write(tmp_path / 'a.png', height=96, width=150)
    options = ['--slide', '32', '--cfg-options']
    scale = 'test_dataloader.dataset.pipeline.1.scale=(300,96)'
    assert predict(tmp_path / 'a.png', *options, scale) == 0
    config = Config.fromfile(trained.config)
    config.model.test_cfg = dict(
        mode='slide', crop_size=(32, 32), stride=(21, 21)
    )
    config.test_pipeline[1].scale = (300, 96)
    host = host_model(config, trained)
    result = inference_model(host, str(tmp_path / 'a.png'))
    slid = result.pred_sem_seg.data[0].numpy()
    mask = read_mask(tmp_path / 'out/mask/a.png')
    np.testing.assert_array_equal(mask, slid)
    # The window's size comes from the config where none is given.
    model = load_model(trained.config, trained.checkpoint, slide=0)
    assert tuple(model.test_cfg.crop_size) == (64, 64)


def test_classes(trained, tmp_path):
    def meta(checkpoint=trained.checkpoint, config=None, classes=None):
        model = load_model(
            config or trained.config, checkpoint, device='cpu', classes=classes
        )
        return model.dataset_meta

    assert meta() == dict(classes=CLASSES, palette=PALETTE)
    named = dict(classes=('x', 'y'), palette=PALETTE)  # the same colours
    assert meta(classes=['x', 'y']) == named
    colours = dict(classes=['x', 'y'], palette=[[7, 8, 9], [1, 1, 1]])
    assert meta(classes=colours)['palette'] == colours['palette']
    with pytest.raises(UserError, match='Got 1 colours for 2 classes'):
        meta(classes=colours | {'palette': [[7, 8, 9]]})
    bare = tmp_path / 'bare.pth'
    saved = torch.load(trained.checkpoint, weights_only=False)
    torch.save(dict(state_dict=saved['state_dict']), bare)
    assert meta(bare) == dict(classes=CLASSES, palette=PALETTE)  # config's
    config = Config.fromfile(trained.config)
    config.test_dataloader.dataset.pop('metainfo')
    config.test_dataloader.dataset.type = 'REFUGEDataset'  # 3 classes
    assert meta(bare, config)['classes'] == ('class 0', 'class 1')
    config.test_dataloader.dataset.type = 'DRIVEDataset'
    assert meta(bare, config) == dict(
        classes=('background', 'vessel'),
        palette=[[120, 120, 120], [6, 230, 230]],
    )
    config.pop('test_dataloader')
    assert meta(bare, config)['classes'] == ('class 0', 'class 1')
    old = dict(CLASSES=['p', 'q'], PALETTE=[[1, 2, 3], [4, 5, 6]])
    torch.save(dict(state_dict=saved['state_dict'], meta=old), bare)
    assert meta(bare) == dict(
        classes=('p', 'q'), palette=[[1, 2, 3], [4, 5, 6]]
    )


def test_record(predict, tmp_path, trained, capsys):
    write(tmp_path / 'a.png')
    about = dict(classes=['sand', 'sun'], palette=[[9, 9, 9], [250, 200, 0]])
    (tmp_path / 'about.json').write_text(json.dumps(about))
    given = '--classes', str(tmp_path / 'about.json')
    assert predict(tmp_path / 'a.png', *given) == 0
    record = json.loads((tmp_path / 'out/predict.json').read_text())
    assert record['classes'] == about['classes']
    assert record['palette'] == about['palette']
    assert record['checkpoint'] == trained.checkpoint
    last = capsys.readouterr().out.splitlines()[-1]
    weights = f'{trained.config} {trained.checkpoint}'
    assert last == f'Next: python -m mmseg_attn export {weights} model.onnx'


def test_one_channel_for_two_classes(trained):
    config = Config.fromfile(trained.config)
    config.model.decode_head.update(
        out_channels=1,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )
    model = load_model(config, None, device='cpu')
    chances = inference_model(model, picture(0)[0]).seg_logits.data[0]
    model.decode_head.threshold = float(chances.median())
    segmenter = Segmenter(model)
    (mask,) = segmenter([segmenter.prepare(picture(0)[0])])
    assert mask.dtype == np.uint8 and 0.4 < mask.mean() < 0.6
    expected = chances > chances.median()
    np.testing.assert_array_equal(mask, expected.numpy())


def test_many_classes(tmp_path):
    mask = np.arange(400, dtype=np.uint16).reshape(20, 20)
    outputs_module.save_mask(tmp_path / 'm.png', mask, [[0, 0, 0]] * 400)
    np.testing.assert_array_equal(read_mask(tmp_path / 'm.png'), mask)


def test_backbone_is_not_downloaded(trained, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError('tried to download')

    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', forbidden)
    monkeypatch.setattr('urllib.request.urlopen', forbidden)
    config = Config.fromfile(trained.config)
    config.model.backbone.pretrained = 'https://example.org/backbone.pth'
    model = load_model(config, trained.checkpoint, device='cpu')
    assert not hasattr(model, 'auxiliary_head')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['nothing_here'], 'No file or folder matches nothing_here'),
        (['{tmp}/empty'], 'No picture or video in'),
        (['{tmp}/a.png', '-o', '{tmp}/out.png'], 'must be a folder'),
        (['{tmp}/a.png', '-o', '{tmp}/a.png/out'], 'Not a directory'),
        (['{tmp}/a.png', '--opacity', '2'], '0 to 1'),
        (['{tmp}/a.png', '--batch-size', '0'], 'batch-size'),
        (['{tmp}/a.png', '--classes', 'a,b,c'], '3 class names'),
        (['{tmp}/a.png', '--device', 'cuda:77'], "'cuda:77' cannot be used"),
    ],
)
def test_bad_arguments(trained, tmp_path, arguments, message):
    write(tmp_path / 'a.png')
    (tmp_path / 'empty').mkdir()
    arguments = [text.format(tmp=tmp_path) for text in arguments]
    command = ['predict', trained.config, trained.checkpoint]
    out = ['-o', str(tmp_path / 'out')]
    with pytest.raises(SystemExit, match=message) as caught:
        main([*command, *out, *arguments])
    assert str(caught.value).startswith('Error: ')
    assert not (tmp_path / 'out').exists()


def test_bad_models(predict, trained, tmp_path):
    write(tmp_path / 'a.png')
    config = Path(trained.config).read_text()
    other = tmp_path / 'wider.py'
    other.write_text(
        config.replace(
            'channels=16,\n        rec', 'channels=24,\n        rec'
        )
    )
    with pytest.raises(SystemExit, match='checkpoint of another model'):
        predict(tmp_path / 'a.png', config=str(other))
    with pytest.raises(SystemExit, match='does not exist'):
        predict(tmp_path / 'a.png', checkpoint=str(tmp_path / 'no.pth'))
    other.write_text('optimizer = 1')
    with pytest.raises(SystemExit, match='has no `model`'):
        predict(tmp_path / 'a.png', config=str(other))
    with pytest.raises(SystemExit, match='Did you mean ccnet_r50-d8'):
        predict(tmp_path / 'a.png', config='ccnet_r50-d8_4xb2-40k_cityscape')


def test_folder_of_a_videos_masks_keeps_what_is_not_its_own(tmp_path):
    (tmp_path / '000000.png').touch()
    check_frames(tmp_path, '.png')
    check_frames(tmp_path / 'missing', '.png')
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(UserError, match='notes.txt'):
        check_frames(tmp_path, '.png')


def test_datasets_own_folders_are_not_written_to(trained, tmp_path):
    cfg = Config.fromfile(trained.config)
    folder = Path(cfg.test_dataloader.dataset.data_root, 'masks')
    before = sorted(folder.rglob('*'))
    for out in (folder, folder / 'new'):
        with pytest.raises(SystemExit, match='is in the dataset folder'):
            main(
                ['predict', '--out', str(out), '--device', 'cpu']
                + [trained.config, trained.checkpoint, str(tmp_path)]
            )
    assert sorted(folder.rglob('*')) == before
