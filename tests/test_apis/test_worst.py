# Copyright (c) mmseg_attn contributors.
"""The worst pictures are those that a count by hand finds."""

import csv
import os
import shlex

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from tiny_segmentor import CLASSES, write_dataset
from torch import nn

from mmseg_attn.__main__ import main
from mmseg_attn.apis.loading import load_model
from mmseg_attn.apis.predictors import Segmenter
from mmseg_attn.apis.ranking import sequence_of
from mmseg_attn.apis.tracing import has_maps


@pytest.fixture
def folder(tmp_path):
    """A dataset of its own: the masks of two pictures are made wrong."""
    write_dataset(tmp_path / 'data', 6)
    masks = tmp_path / 'data/masks'
    mask = cv2.imread(str(masks / '4.png'), 0)
    cv2.imwrite(str(masks / '4.png'), 1 - mask)
    half = mask.copy()
    half[:, :32] = 255
    cv2.imwrite(str(masks / '2.png'), half)
    return tmp_path


def run(trained, folder, *options, changes=()):
    return main(
        [
            'worst',
            trained.config,
            trained.checkpoint,
            '--out',
            str(folder / 'out'),
            '--device',
            'cpu',
            *options,
            '--cfg-options',
            f'test_dataloader.dataset.data_root={folder / "data"}',
            *changes,
        ]
    )


def rows(folder):
    with open(folder / 'out/scores.csv', encoding='utf-8') as stream:
        return list(csv.DictReader(stream))


def by_hand(trained, folder):
    """mIoU and IoU of each picture, pixel sets compared."""
    model = load_model(trained.config, trained.checkpoint, device='cpu')
    segmenter = Segmenter(model)
    scores = {}
    for path in sorted((folder / 'data/images').iterdir()):
        (found,) = segmenter([segmenter.prepare(path)])
        truth = np.asarray(Image.open(folder / 'data/masks' / path.name))
        counted = truth != 255
        iou = []
        for index in range(len(CLASSES)):
            a, b = (found == index) & counted, (truth == index) & counted
            union = (a | b).sum()
            iou.append(100 * (a & b).sum() / union if union else np.nan)
        scores[str(path)] = (np.nanmean(iou), *iou)
    return scores


def test_scores_and_order(trained, folder, capsys):
    assert not run(trained, folder, '-n', '2')
    expected = by_hand(trained, folder)
    found = rows(folder)
    assert [row['picture'] for row in found] == sorted(
        expected, key=lambda path: expected[path][0]
    )
    for row in found:
        given = [float(row[key] or 'nan') for key in ('mIoU', *CLASSES)]
        np.testing.assert_allclose(
            given, expected[row['picture']], rtol=0, atol=0.01
        )
    # The mask that was turned round.
    assert found[0]['picture'].endswith('4.png')
    assert float(found[0]['mIoU']) < 50 < float(found[-1]['mIoU'])
    out = capsys.readouterr().out
    assert '2 of 6 pictures with the lowest mIoU' in out
    assert '4.png' in out
    with Image.open(folder / 'out/worst.png') as sheet:
        assert sheet.width > 1000
        assert len(np.unique(np.asarray(sheet.convert('L')))) > 50


def test_by_class(trained, folder):
    # Nothing but ground, and almost: the order of disc is another one.
    cv2.imwrite(str(folder / 'data/masks/0.png'), np.zeros((64, 64), np.uint8))
    orders = {}
    for name in ('disc', 'ground'):
        run(trained, folder, '--class', name, '--overwrite')
        found = rows(folder)
        values = [float(row[name]) for row in found]
        assert values == sorted(values)
        orders[name] = [row['picture'] for row in found]
    assert orders['disc'] != orders['ground']
    with pytest.raises(SystemExit, match=r'exists; replace it'):
        run(trained, folder, '--class', 'disc')


def test_next_command_shows_where_it_looks(
    trained, folder, capsys, monkeypatch
):
    """At the worst picture; of a model without attention there is none."""
    monkeypatch.chdir(folder)
    run(trained, folder)
    *_, last = capsys.readouterr().out.splitlines()
    words = shlex.split(last.removeprefix('Next: python -m mmseg_attn'))
    assert words[3] == rows(folder)[0]['picture']
    assert not main(words)
    assert (folder / 'attention.html').exists()
    assert not has_maps(nn.Sequential(nn.Conv2d(3, 2, 1)))


def test_one_per_sequence(trained, folder, capsys):
    """The worst of each; also where one was among the worst for a while."""
    run(trained, folder)
    order = [os.path.basename(row['picture']) for row in rows(folder)]
    names = ['a_01', 'a_02', 'a_3', 'b_04', 'b_11', '0_b_50']
    ranks = [2, 0, 3, 4, 1, 5]
    for part in ('images', 'masks'):
        for name, rank in zip(names, ranks, strict=True):
            path = folder / 'data' / part / order[rank]
            path.rename(path.with_name(f'{name}.png'))
    capsys.readouterr()
    for number, expected in ((3, ['a_02', 'b_11', '0_b_50']), (1, ['a_02'])):
        options = ['--one-per-sequence', '--overwrite', '-n', str(number)]
        assert not run(trained, folder, *options)
        out = capsys.readouterr().out
        assert f'{len(expected)} of 6 pictures' in out
        assert 'the worst of each of 3 sequences' in out
        shown = [name for name in names if f'{name}.png' in out]
        assert sorted(shown) == sorted(expected)
    assert len(rows(folder)) == 6


@pytest.mark.parametrize(
    ('path', 'suffix', 'expected'),
    [
        ('x/0001TP_006690.png', '.png', 'x/0001TP'),
        ('x/Seq05VD_f00030.png', '', 'x/Seq05VD_f'),
        ('x/0001TP_006690_L.png', '', 'x/0001TP'),
        (
            'val/frankfurt_000000_000294_leftImg8bit.png',
            '_leftImg8bit.png',
            'val/frankfurt_000000',
        ),
        ('clip/000012.jpg', '.jpg', 'clip/'),
        ('x/cat.jpg', '.jpg', 'x/cat.jpg'),
    ],
)
def test_sequences(path, suffix, expected):
    assert sequence_of(path, suffix) == expected


def test_nothing_is_replaced_unasked(trained, folder):
    (folder / 'out').mkdir()
    (folder / 'out/scores.csv').write_text('mine')
    with pytest.raises(SystemExit, match=r'scores\.csv exists.*--overwrite'):
        run(trained, folder)
    assert (folder / 'out/scores.csv').read_text() == 'mine'
    run(trained, folder, '--overwrite')
    assert len(rows(folder)) == 6


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('-n', '0'), r'\(--number\) must be 1 or more, got 0'),
        (('--class', 'horse'), "'horse' is none of ground, disc"),
        (('--split', 'val'), 'val_dataloader has 0 datasets'),
        (('--device', 'cuda:99'), "Device 'cuda:99' cannot be used here"),
    ],
)
def test_bad_arguments(trained, folder, options, message):
    with pytest.raises(SystemExit, match=message):
        run(trained, folder, *options)
    assert not (folder / 'out').exists()


def test_bad_label(trained, folder):
    mask = np.full((64, 64), 9, np.uint8)
    cv2.imwrite(str(folder / 'data/masks/1.png'), mask)
    with pytest.raises(SystemExit, match=r'images/1\.png holds 9.*labels'):
        run(trained, folder)
    assert not (folder / 'out').exists()


def test_a_folder_that_cannot_be_written_is_found_first(
    trained, folder, monkeypatch
):
    (folder / 'out').write_text('a file')
    monkeypatch.setattr('mmseg_attn.apis.load_model', None)  # not reached
    with pytest.raises(SystemExit, match='out is a file, expected a folder'):
        run(trained, folder)


def test_the_label_that_the_head_ignores(trained, folder):
    run(trained, folder)
    expected = rows(folder)
    for path in (folder / 'data/masks').iterdir():
        mask = cv2.imread(str(path), 0)
        mask[mask == 255] = 7
        cv2.imwrite(str(path), mask)
    changes = ['model.decode_head.ignore_index=7']
    run(trained, folder, '--overwrite', changes=changes)
    assert rows(folder) == expected


def test_everything_ignored(trained, folder):
    for path in (folder / 'data/masks').iterdir():
        cv2.imwrite(str(path), np.full((64, 64), 255, np.uint8))
    with pytest.raises(SystemExit, match='none of 6 pictures has a label'):
        run(trained, folder)


def test_training_split_as_in_testing(trained, folder):
    """Without the crops of training: the same figures as by the test split."""
    run(trained, folder)
    first = rows(folder)
    cfg = Config.fromfile(trained.config)
    crop = dict(type='RandomCrop', crop_size=(32, 32))
    cfg.train_dataloader.dataset.pipeline.insert(2, crop)
    cfg.dump(str(folder / 'cropping.py'))
    main(
        [
            'worst',
            str(folder / 'cropping.py'),
            trained.checkpoint,
            *('--out', str(folder / 'train'), '--device', 'cpu'),
            *('--split', 'train', '--cfg-options'),
            f'train_dataloader.dataset.data_root={folder / "data"}',
        ]
    )
    with open(folder / 'train/scores.csv', encoding='utf-8') as stream:
        assert list(csv.DictReader(stream)) == first
