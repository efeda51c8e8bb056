# Copyright (c) mmseg_attn contributors.
"""Scores, areas and polygons of a segmentor, and the look of its regions."""

import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.apis import inference_model
from PIL import Image
from tiny_segmentor import CLASSES, PALETTE, picture

from mmseg_attn.__main__ import main
from mmseg_attn.apis import load_model, make_predictor
from mmseg_attn.apis import predict as predict_in_memory
from mmseg_attn.errors import UserError
from mmseg_attn.inference.regions import find_regions
from mmseg_attn.visualization.region_names import write_names


@pytest.fixture
def predict(trained, tmp_path):
    def run(*arguments):
        return main(
            ['predict', trained.config, trained.checkpoint]
            + [*map(str, arguments), '--device', 'cpu']
            + ['--out', str(tmp_path / 'out')]
        )

    return run


@pytest.fixture
def pictures(tmp_path):
    """Two pictures, one of them in a folder below."""
    folder = tmp_path / 'in'
    (folder / 'deeper').mkdir(parents=True)
    for seed, name in enumerate(['a.png', 'deeper/b.png']):
        cv2.imwrite(str(folder / name), picture(seed, 64, 80)[0])
    return folder


def read(path):
    return json.loads(path.read_text(encoding='utf-8'))


def chances_of_host(trained, image):
    model = load_model(trained.config, trained.checkpoint, device='cpu')
    logits = inference_model(model, image).seg_logits.data
    return (logits.exp() / logits.exp().sum(0)).numpy()


@pytest.mark.parametrize(
    ('dtype', 'one', 'error'), [('uint8', 255, 0.002), ('float16', 1, 0.0003)]
)
def test_scores(predict, pictures, tmp_path, trained, dtype, one, error):
    options = ['--save', 'scores', 'mask', '--score-type', dtype]
    assert predict(pictures / 'a.png', *options) == 0
    with np.load(tmp_path / 'out/scores/a.npz') as found:
        assert found['classes'].tolist() == list(CLASSES)
        scores = found['scores']
    assert scores.dtype == dtype and scores.shape == (2, 64, 80)
    expected = chances_of_host(trained, str(pictures / 'a.png'))
    assert np.abs(scores / one - expected).max() < error
    assert 0.1 < expected[1].mean() < 0.9


def test_scores_in_python(trained):
    model = load_model(trained.config, trained.checkpoint, device='cpu')
    image, _ = picture(0)
    (found,) = predict_in_memory(model, [image], scores=True)
    np.testing.assert_array_equal(found.mask, predict_in_memory(model, image))
    expected = chances_of_host(trained, image)
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)


def test_scores_are_not_asked_for(predict, pictures, tmp_path):
    assert predict(pictures) == 0
    folders = {path.name for path in (tmp_path / 'out').iterdir()}
    assert folders == {'mask', 'overlay', 'predict.json'}


def test_scores_of_views_and_of_one_logit(trained):
    image, _ = picture(5)
    image[:, 32:] //= 2  # so that the flipped view differs

    def scores(config, **options):
        model = load_model(config, checkpoint, device='cpu')
        segmenter = make_predictor(model, **options)
        segmenter.keep_scores()
        return segmenter([segmenter.prepare(image)])[0]

    config, checkpoint = Config.fromfile(trained.config), trained.checkpoint
    # The pipeline of the views does not resize.
    config.test_dataloader.dataset.pipeline.pop(1)
    views = [
        chances_of_host_without_resize(config, checkpoint, view)
        for view in (image, image[:, ::-1])
    ]
    mean = (views[0] + views[1][..., ::-1]) / 2
    found = scores(config, tta=True)
    np.testing.assert_allclose(found.scores, mean, atol=1e-5)
    np.testing.assert_array_equal(found.mask, mean.argmax(0))

    config.model.decode_head.update(
        out_channels=1,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
    )
    checkpoint = None
    for options in ({}, {'tta': True}):
        found = scores(config, **options)
        np.testing.assert_allclose(found.scores.sum(0), 1, atol=1e-6)
        np.testing.assert_array_equal(found.mask, found.scores[1] > 0.3)


def chances_of_host_without_resize(config, checkpoint, view):
    model = load_model(config, checkpoint, device='cpu')
    model.cfg.test_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='PackSegInputs'),
    ]
    logits = inference_model(model, np.ascontiguousarray(view)).seg_logits
    return logits.data.softmax(0).numpy()


def filled(polygon, shape):
    """Pixels whose centres a line encloses, by the even-odd rule."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for (x1, y1), (x2, y2) in zip(
        polygon, np.roll(polygon, -1, 0), strict=True
    ):
        if y1 != y2:
            crossed = (y1 > y) != (y2 > y)
            inside ^= crossed & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return inside


def blobs():
    """Three classes with holes, islands in them, and touching corners."""
    noise = np.random.default_rng(3).random((40, 50))
    noise = cv2.GaussianBlur(noise, (0, 0), 1.5)
    mask = np.digitize(noise, np.quantile(noise, [0.3, 0.7]))
    mask[:9, :9] = 0
    mask[1:8, 1:8] = 2
    mask[3:6, 3:6] = 0
    mask[4, 4] = 2
    return mask.astype(np.uint8)


def test_regions_are_those_of_a_flood():
    """Each polygon gives back its pixels, holes left out."""
    mask = blobs()
    counts, boxes = [], []
    for label in range(3):
        count, numbers, stats, _ = cv2.connectedComponentsWithStats(
            (mask == label).astype(np.uint8), connectivity=4
        )
        counts += [(label, (numbers == n).tobytes()) for n in range(1, count)]
        boxes += [(label, *row[:4], row[4]) for row in stats[1:].tolist()]
    regions = list(find_regions(mask, range(3), tolerance=0))
    shapes = [(r.label, filled(r.polygon, mask.shape)) for r in regions]
    assert sorted((n, shape.tobytes()) for n, shape in shapes) == sorted(
        counts
    )
    found = [(r.label, *r.box, r.pixels) for r in regions]
    assert sorted(found) == sorted(boxes)
    assert (2, 1, 1, 7, 7, 49 - 9) in found  # with a hole


def test_simpler_polygons_stay_near():
    mask = cv2.circle(np.zeros((90, 90), np.uint8), (45, 45), 36, 1, -1)
    cv2.circle(mask, (45, 50), 12, 0, -1)
    (exact,) = find_regions(mask, [1], tolerance=0)
    (simple,) = find_regions(mask, [1], tolerance=1)
    assert len(simple.polygon) < len(exact.polygon) / 3
    assert simple.pixels == exact.pixels == mask.sum()
    wrong = filled(simple.polygon, mask.shape) != (mask == 1)
    near = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((5, 5)))
    assert 0 < wrong.sum() < 0.03 * mask.sum()
    assert not (wrong & (near == 0)).any()
    # One pixel is less than the tolerance, but not nothing.
    dot = np.zeros((3, 3), np.uint8)
    dot[1, 1] = 1
    (region,) = find_regions(dot, [1], tolerance=5)
    np.testing.assert_array_equal(filled(region.polygon, (3, 3)), dot)


def test_files_of_polygons(predict, pictures, tmp_path):
    kinds = ['areas', 'coco', 'labelme', 'mask']
    assert predict(pictures, '--save', *kinds, '--tolerance', '0') == 0
    out = tmp_path / 'out'
    joined = read(out / 'coco.json')
    assert [item['file_name'] for item in joined['images']] == [
        'a.png',
        'deeper/b.png',
    ]
    assert joined['categories'] == [
        dict(id=1, name='ground'),
        dict(id=2, name='disc'),
    ]
    ids = [item['id'] for item in joined['annotations']]
    assert ids == list(range(1, len(ids) + 1))
    for image in joined['images']:
        stem = image['file_name'].removesuffix('.png')
        mask = np.array(Image.open(out / f'mask/{stem}.png'))
        assert mask.shape == (image['height'], image['width'])
        redrawn = np.full(mask.shape, 9)
        for item in joined['annotations']:
            if item['image_id'] != image['id']:
                continue
            (flat,) = item['segmentation']
            region = filled(np.reshape(flat, (-1, 2)), mask.shape)
            redrawn[region] = item['category_id'] - 1
            assert item['area'] == region.sum()
            assert item['share'] == pytest.approx(region.mean())
            x, y, width, height = item['bbox']
            rows, columns = np.nonzero(region)
            assert (x, y) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
        np.testing.assert_array_equal(redrawn, mask)

        areas = read(out / f'areas/{stem}.json')['classes']
        assert [(a['name'], a['pixels']) for a in areas] == [
            (name, int((mask == index).sum()))
            for index, name in enumerate(CLASSES)
        ]
        assert sum(a['share'] for a in areas) == pytest.approx(1)

        path = out / f'labelme/{stem}.json'
        shapes = read(path)
        source = path.parent / shapes['imagePath']
        assert source.resolve() == pictures / image['file_name']
        assert (shapes['imageHeight'], shapes['imageWidth']) == mask.shape
        discs = np.zeros(mask.shape, bool)
        for shape in shapes['shapes']:
            if shape['label'] == 'disc':
                discs |= filled(np.array(shape['points']), mask.shape)
        np.testing.assert_array_equal(discs, mask == 1)


def test_the_joined_file_is_no_others(predict, pictures, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/coco.json').write_text('mine')
    with pytest.raises(SystemExit, match='coco.json exists and was not'):
        predict(pictures, '--save', 'coco')
    assert (tmp_path / 'out/coco.json').read_text() == 'mine'


def test_polygons_of_a_video(predict, tmp_path):
    video = cv2.VideoWriter(
        str(tmp_path / 'clip.avi'),
        cv2.VideoWriter_fourcc(*'MJPG'),
        9,
        (64,) * 2,
    )
    for seed in range(2):
        video.write(picture(seed)[0])
    video.release()
    assert predict(tmp_path / 'clip.avi', '--save', 'coco', 'labelme') == 0
    names = [
        i['file_name'] for i in read(tmp_path / 'out/coco.json')['images']
    ]
    assert names == ['clip/000000.png', 'clip/000001.png']
    shapes = read(tmp_path / 'out/labelme/clip/000001.json')
    assert shapes['imagePath'] == '000001.png'


@pytest.mark.parametrize('clear', [['--clear'], ['--clear', 'ground']])
def test_clear(predict, pictures, tmp_path, clear):
    kinds = ['overlay', 'mask', 'coco', '--overlay-format', 'png']
    assert predict(pictures / 'a.png', *clear, '--save', *kinds) == 0
    shown = np.array(Image.open(tmp_path / 'out/overlay/a.png'))
    source = np.array(Image.open(pictures / 'a.png'))
    mask = np.array(Image.open(tmp_path / 'out/mask/a.png'))
    changed = (shown[:, :80] != source).any(-1)
    np.testing.assert_array_equal(changed, mask == 1)
    # Nor in the legend.
    assert not (shown[:, 80:] == PALETTE[0]).all(-1).any()
    assert (shown[:, 80:] == PALETTE[1]).all(-1).any()
    found = read(tmp_path / 'out/coco.json')['annotations']
    assert {item['category_id'] for item in found} == {2}


def test_clear_background_wherever_it_is(predict, pictures, tmp_path):
    options = ['--classes', 'thing,Background', '--no-legend', '--clear']
    kinds = ['--save', 'overlay', 'mask', '--overlay-format', 'png']
    assert predict(pictures / 'a.png', *options, *kinds) == 0
    shown = np.array(Image.open(tmp_path / 'out/overlay/a.png'))
    source = np.array(Image.open(pictures / 'a.png'))
    mask = np.array(Image.open(tmp_path / 'out/mask/a.png'))
    changed = (shown != source).any(-1)
    np.testing.assert_array_equal(changed, mask == 0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--clear', 'grund'], "'grund', is none of ground, disc. Did you"),
        (['--tolerance', '-1'], 'must be 0 or more pixels'),
        (['--save', 'pfm'], 'gives overlay, mask, scores, areas, coco'),
    ],
)
def test_bad_arguments(predict, pictures, tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        predict(pictures, *options)
    assert not (tmp_path / 'out').exists()


def test_views_of_a_model_that_keeps_no_scores(trained):
    model = load_model(trained.config, trained.checkpoint, device='cpu')
    segmenter = make_predictor(model, tta=True)
    segmenter._runs = model
    with pytest.raises(UserError, match='does not keep scores'):
        segmenter.keep_scores()


def test_names_stand_where_regions_are_thick():
    mask = np.zeros((200, 300), np.uint8)
    mask[20:120, 150:290] = 1  # thick
    mask[180:184, :] = 2  # too thin for text
    grey = np.full((200, 300, 3), 90, np.uint8)
    classes = ['ground', 'disc', 'line']

    def written(labels):
        return (write_names(grey, mask, classes, labels) != 90).any(-1)

    rows, columns = np.nonzero(written([1]))
    assert abs(rows.mean() - 70) < 8 and columns.min() >= 150
    assert columns.max() < 290
    assert not written([2]).any()
    both = written([0, 1])
    assert (both & (mask == 0)).any() and (both & (mask == 1)).any()
    assert (grey == 90).all()


def test_names_of_regions(predict, pictures, tmp_path):
    pictures = pictures / 'a.png'
    assert predict(pictures, '--save', 'overlay') == 0
    plain = np.array(Image.open(tmp_path / 'out/overlay/a.jpg'), int)
    assert (
        predict(pictures, '--save', 'overlay', '--names', '--overwrite') == 0
    )
    named = np.array(Image.open(tmp_path / 'out/overlay/a.jpg'), int)
    assert np.abs(named - plain).max() > 90
