# Copyright (c) mmseg_attn contributors.
import hashlib
import itertools
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from PIL import Image

from mmseg_attn.datasets.scenes import (
    CLASSES,
    GROUPS,
    PALETTE,
    make_scenes,
    render,
    write_folder,
    write_pairs,
)
from mmseg_attn.errors import UserError

ROOT = Path(__file__).parents[2]
SIZE = 12  # of an object, in pixels
REACH = 28


def digest(folder: Path) -> str:
    """Hash names and contents of all files."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob('*')):
        if path.is_file():
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('scenes')
    write_folder(out, seed=0, train=8, val=4)
    return out


def test_bytes_are_the_same_on_every_machine(folder):
    assert digest(folder) == (
        '7fe01dd39ce1b334c2a9b6f31385909a95d2ca71478af5080b5fad1a2e7d7147'
    )


def test_another_seed_gives_other_bytes(folder, tmp_path):
    write_folder(tmp_path, seed=1, train=8, val=4)
    assert digest(tmp_path) != digest(folder)


def test_files_decode_to_what_was_drawn(folder):
    scenes = list(make_scenes(0, 12))
    for index in (0, 7):
        picture, mask = render(scenes[index])
        name = f'train/{index:05d}.png'
        # Two decoders that share no code with the writer.
        read = cv2.imread(str(folder / 'images' / name))
        assert (read[..., ::-1] == picture).all()
        with Image.open(folder / 'masks' / name) as image:
            assert image.mode == 'P'
            assert (np.array(image) == mask).all()
            colours = np.array(image.convert('RGB'))
        assert (colours == np.array(PALETTE)[mask]).all()


def test_instances_are_the_objects_of_the_masks(folder):
    """Read by pycocotools, which shares no code with the writer."""
    coco = pytest.importorskip('pycocotools.coco')
    for split in ('train', 'val'):
        index = coco.COCO(str(folder / f'annotations/{split}.json'))
        names = sorted(p.name for p in (folder / 'images' / split).iterdir())
        images = index.loadImgs(index.getImgIds())
        assert [image['file_name'] for image in images] == names
        categories = index.loadCats(index.getCatIds())
        assert [c['name'] for c in categories] == list(CLASSES[1:])
        for image in images:
            path = folder / 'masks' / split / image['file_name']
            truth = np.array(Image.open(path))
            found = np.zeros_like(truth)
            for item in index.loadAnns(index.getAnnIds(image['id'])):
                mask = index.annToMask(item).astype(bool)
                assert not found[mask].any()
                found[mask] = item['category_id']
                rows, columns = np.nonzero(mask)
                x, y, width, height = item['bbox']
                assert (x, y) == (columns.min(), rows.min())
                assert x + width == columns.max() + 1
                assert y + height == rows.max() + 1
                assert item['area'] == mask.sum()
            assert (found == truth).all()


def test_no_layout_is_in_both_splits(folder):
    train, val = (
        {p.read_bytes() for p in (folder / 'masks' / split).iterdir()}
        for split in ('train', 'val')
    )
    assert not train & val


def test_fours_differ_in_the_colour_of_flags_alone():
    scenes = list(make_scenes(3, 40))
    for four in zip(*[iter(scenes)] * 4, strict=True):
        drawn = [render(scene) for scene in four]
        flags = np.isin(drawn[0][1], (1, 2))
        for picture, mask in drawn:
            assert (np.isin(mask, (1, 2)) == flags).all()
            assert (picture == drawn[0][0])[~flags].all()
        # Every combination of the two flags' colours, once.
        seen = {tuple(o.colour for o in scene.objects) for scene in four}
        assert len(seen) == 4


def test_pixels_of_the_two_classes_of_a_kind_are_equally_many():
    masks = [render(scene)[1] for scene in make_scenes(5, 40)]
    count = np.bincount(np.ravel(masks), minlength=len(CLASSES))
    assert (count > 0).all()
    assert list(count[1::2]) == list(count[2::2])


def distance(a, b):
    """Free pixels between two objects along both axes."""
    return abs(a.y - b.y) - SIZE, abs(a.x - b.x) - SIZE


def test_what_tells_a_class_is_where_it_should_be():
    for scene in make_scenes(1, 200):
        objects = scene.objects
        for item in objects:
            assert 0 <= item.y <= scene.size - SIZE
            assert 0 <= item.x <= scene.size - SIZE
            if item.kind == 'box':
                flag = objects[item.told_by]
                assert (flag.kind, flag.colour) == ('flag', item.colour)
                # In line with it, out of reach of convolutions.
                assert flag.y == item.y or flag.x == item.x
                assert max(distance(item, flag)) >= REACH
            if item.kind == 'ring':
                box = objects[item.told_by]
                flag = objects[box.told_by]
                assert (box.kind, flag.colour) == ('box', item.colour)
                assert box.y == item.y or box.x == item.x
                # Outside the ring's row and column with all that a
                # convolution could widen them by.
                assert min(distance(item, flag)) >= REACH
        # No object has a wrong teller in its row or column.
        for a, b in itertools.permutations(objects, 2):
            if (a.kind, b.kind) in (
                ('box', 'flag'),
                ('ring', 'box'),
                ('ring', 'flag'),
            ) and a.told_by != b.id:
                assert min(distance(a, b)) > 0


def build(config: str) -> torch.nn.Module:
    cfg = Config.fromfile(next((ROOT / 'configs/demo').glob(config)))
    init_default_scope('mmseg')
    torch.manual_seed(0)
    cfg.model.backbone.norm_cfg.type = 'BN'
    cfg.model.decode_head.norm_cfg.type = 'BN'
    model = MODELS.build(cfg.model)
    model.init_weights()
    for name, parameter in model.named_parameters():
        # As if trained: gamma would hide the attention, and a random layer
        # ends its residual branches in zeros.
        if 'gamma' in name or name.endswith('bn2.weight'):
            torch.nn.init.constant_(parameter, 1.0)
    return model.double().eval()


@pytest.mark.parametrize(
    ('config', 'without', 'sees_of_box', 'sees_of_ring'),
    [
        ('fcn_r18-s4*', None, False, False),
        ('ccnet-r1_r18-s4*', None, True, False),
        ('ccnet-r2_r18-s4*', None, True, True),
        ('caanet_r18-s4*', None, True, True),
        ('isanet_r18-s4*', None, True, True),
        ('eanet_r18-s4*', None, True, True),
        ('lanet_r18-s4*', None, True, True),
        # The convolutions of these heads alone.
        ('caanet_r18-s4*', '^attention$|image_level', False, False),
        ('isanet_r18-s4*', 'attentions', False, False),
    ],
)
def test_what_the_demo_models_can_see(
    config, without, sees_of_box, sees_of_ring
):
    model = build(config)
    for name, module in model.decode_head.named_children():
        if without and re.search(without, name):
            for part in [module, *module.children()]:
                part.register_forward_hook(lambda m, args, out: 0 * out)
    for scene in itertools.islice(make_scenes(2, 40), 0, None, 8):
        picture = torch.from_numpy(render(scene)[0] / 128.0 - 1)
        picture = picture.permute(2, 0, 1)[None].requires_grad_()
        logits = torch.nn.functional.interpolate(
            model(picture), size=(scene.size,) * 2, mode='bilinear'
        )
        for item in scene.objects:
            if item.kind == 'flag':
                continue
            at = (slice(item.y, item.y + SIZE), slice(item.x, item.x + SIZE))
            (gradient,) = torch.autograd.grad(
                logits[(..., *at)].square().sum(), picture, retain_graph=True
            )
            flag = scene.objects[item.told_by]
            if item.kind == 'ring':
                flag = scene.objects[flag.told_by]
            seen = gradient[
                ..., flag.y : flag.y + SIZE, flag.x : flag.x + SIZE
            ]
            expected = sees_of_box if item.kind == 'box' else sees_of_ring
            assert bool(seen.any()) == expected


@pytest.mark.parametrize(
    ('number', 'size', 'message'),
    [(6, 96, 'multiple of 4'), (0, 96, 'multiple of 4'), (4, 60, 'at least')],
)
def test_impossible_scenes_are_refused(number, size, message):
    with pytest.raises(ValueError, match=message):
        next(make_scenes(0, number, size))


@pytest.mark.parametrize('numbers', [(8, 6), (6, 8), (6, 6), (0, 4)])
def test_impossible_folders_are_refused_before_anything(tmp_path, numbers):
    """6 + 6 is a multiple of 4, but neither split is."""
    with pytest.raises(ValueError, match='multiple of 4'):
        write_folder(tmp_path / 'out', 0, *numbers)
    assert not (tmp_path / 'out').exists()


def command(*args):
    return subprocess.run(
        [sys.executable, '-m', 'mmseg_attn', 'scenes', *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_command_writes_once_and_never_over_other_files(folder, tmp_path):
    out = tmp_path / 'scenes'
    arguments = (out, '--train', 8, '--val', 4)
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    said, following = done.stdout.splitlines()  # and no greetings
    assert said == f'8 + 4 scenes are in {out}'
    assert f'train_dataloader.dataset.data_root={out} ' in following
    assert digest(out) == digest(folder)
    again = command(*arguments, '--seed', 1)
    assert again.returncode == 1
    assert 'is not empty' in again.stderr
    assert 'Traceback' not in again.stderr
    assert digest(out) == digest(folder)


def load(root, **kwargs):
    return DATASETS.build(
        dict(
            type='mmseg_attn.FolderDataset',
            data_root=str(root),
            data_prefix=dict(
                img_path='images/train', seg_map_path='masks/train'
            ),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations'),
            ],
            **kwargs,
        )
    )


def test_dataset_loads_through_mmseg(folder):
    init_default_scope('mmseg')
    dataset = load(folder)
    assert len(dataset) == 8
    assert tuple(dataset.metainfo['classes']) == CLASSES
    assert dataset.metainfo['palette'] == [list(c) for c in PALETTE]
    assert dataset.metainfo['groups']['two hops'] == list(GROUPS['two hops'])
    picture, mask = render(list(make_scenes(0, 8))[5])
    assert (dataset[5]['img'][..., ::-1] == picture).all()
    assert (dataset[5]['gt_seg_map'] == mask).all()


def test_dataset_without_description_says_so(tmp_path):
    init_default_scope('mmseg')
    with pytest.raises(UserError, match='dataset.json does not exist'):
        load(tmp_path)
    (tmp_path / 'dataset.json').write_text('{"palette": []}')
    with pytest.raises(UserError, match='no class names'):
        load(tmp_path)


def test_fewer_scenes_do_not_mix_with_older_ones(tmp_path):
    write_folder(tmp_path, train=8, val=4)
    with pytest.raises(ValueError, match=r'holds 00004\.png, which'):
        write_folder(tmp_path, train=4, val=4)


@pytest.mark.parametrize('seed', [-1, 2**32])
def test_seeds_out_of_range(tmp_path, seed):
    for write in (write_folder, write_pairs):
        with pytest.raises(UserError, match=r'seed \(--seed\) must be 0 to'):
            write(tmp_path / 'out', seed, 4, 4, 96)
