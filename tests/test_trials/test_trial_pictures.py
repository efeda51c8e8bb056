# Copyright (c) mmseg_attn contributors.
import json

import numpy as np
import pytest
from PIL import Image
from tiff import write_tiff

from mmseg_attn.errors import UserError
from mmseg_attn.trials.pictures import prepare_pictures


def save(path, array, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array, np.uint8))
    if palette:
        image.putpalette(palette)
    image.save(path)


def halves(height, width, left, right):
    mask = np.full((height, width), left)
    mask[:, width // 2 :] = right
    return mask


@pytest.fixture
def folders(tmp_path):
    """Ten pictures of different sizes with masks of 0 and 1."""
    random = np.random.RandomState(0)
    for index in range(10):
        size = 20 + 30 * index, 40 + 25 * index
        picture = random.randint(0, 256, (*size, 3))
        suffix = 'jpg' if index % 2 else 'png'
        save(tmp_path / f'images/p{index}.{suffix}', picture)
        save(tmp_path / f'masks/p{index}.png', halves(*size, 0, 1))
    return tmp_path


def prepare(folders, seed=0, out='out'):
    notes, floor = prepare_pictures(
        folders / 'images', folders / 'masks', folders / out, seed
    )
    about = json.loads((folders / out / 'dataset.json').read_text())
    return notes, floor, about


def read(folders, split='train', out='out'):
    paths = sorted((folders / out / 'masks' / split).iterdir())
    return {path.stem: np.array(Image.open(path)) for path in paths}


def test_sizes_split_and_classes(folders):
    before = {p: p.read_bytes() for p in folders.rglob('*.*')}
    _, floor, about = prepare(folders)
    assert about['classes'] == ['background', 'foreground']
    assert about['groups'] == {n: [n] for n in about['classes']}
    train, val = read(folders), read(folders, 'val')
    assert (len(train), len(val)) == (8, 2)
    assert not set(train) & set(val)
    for name, mask in {**train, **val}.items():
        split = 'train' if name in train else 'val'
        picture = Image.open(folders / f'out/images/{split}/{name}.png')
        assert picture.size == mask.shape[::-1]
        # Small ones as they are, large ones at 192 pixels.
        index = int(name[1:])
        height, width = 20 + 30 * index, 40 + 25 * index
        scale = min(1, 192 / max(height, width))
        assert picture.size == (round(width * scale), round(height * scale))
        assert set(np.unique(mask)) == {0, 1}
    ones = sum((mask == 1).sum() for mask in val.values())
    share = 100 * ones / sum(mask.size for mask in val.values())
    larger = 'foreground' if share > 50 else 'background'
    assert floor[f'mIoU {larger}'] == pytest.approx(max(share, 100 - share))
    assert floor['mIoU'] == pytest.approx(max(share, 100 - share) / 2)
    # The user's files are as they were.
    assert before == {p: p.read_bytes() for p in before}
    assert {p.parent.name for p in folders.rglob('*.jpg')} == {'images'}


def test_split_depends_on_the_seed_alone(folders):
    for out, seed in (('a', 1), ('b', 1), ('c', 2), ('d', 3)):
        prepare(folders, seed, out)
    drawn = [set(read(folders, 'val', out)) for out in 'abcd']
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2] or drawn[0] != drawn[3]


def test_folders_train_and_val_are_the_split(tmp_path):
    for name in ('train/a', 'train/b', 'val/a', 'test/z'):
        save(tmp_path / f'images/{name}.png', np.zeros((30, 30, 3)))
        save(tmp_path / f'masks/{name}.png', halves(30, 30, 3, 7))
    notes, _, about = prepare(tmp_path)
    assert about['classes'] == ['class 3', 'class 7']
    assert set(read(tmp_path)) == {'a', 'b'}
    assert set(read(tmp_path, 'val')) == {'a'}
    assert any('1 pictures outside train and val' in note for note in notes)


@pytest.mark.parametrize('val', ['valid', 'Validation', 'val'])
def test_folders_of_splits_by_their_other_names(tmp_path, val):
    for name in ('train/a', 'train/b', f'{val}/a', 'test/z'):
        save(tmp_path / f'images/{name}.png', np.zeros((30, 30, 3)))
        save(tmp_path / f'masks/{name}.png', halves(30, 30, 3, 7))
    notes, _, _ = prepare(tmp_path)
    assert set(read(tmp_path)) == {'a', 'b'}
    assert set(read(tmp_path, 'val')) == {'a'}
    assert any(f'folders train and {val}' in note for note in notes)


def test_test_pictures_are_left_out_of_a_drawn_split(tmp_path):
    for name in ('train/a', 'train/b', 'test/y', 'test/z'):
        save(tmp_path / f'images/{name}.png', np.zeros((30, 30, 3)))
        save(tmp_path / f'masks/{name}.png', halves(30, 30, 3, 7))
    notes, _, _ = prepare(tmp_path)
    used = set(read(tmp_path)) | set(read(tmp_path, 'val'))
    assert used == {'a', 'b'}
    assert 'Note: 2 pictures in test are not used.' in notes


def test_pictures_of_twelve_bits(tmp_path):
    write_masks(tmp_path, *[halves(20, 20, 0, 1)] * 3)
    for path in (tmp_path / 'images').iterdir():
        path.unlink()
        write_tiff(
            path.with_suffix('.tif'), np.full((20, 20, 3), 2048, np.uint16)
        )
    with pytest.raises(UserError, match=r'\.tif has 16 bits .*--depth'):
        prepare(tmp_path)
    images, masks = tmp_path / 'images', tmp_path / 'masks'
    prepare_pictures(images, masks, tmp_path / 'out', 0, depth=12)
    for path in (tmp_path / 'out/images/train').iterdir():
        assert (np.array(Image.open(path)) == 128).all()


def test_files_keep_their_names(tmp_path):
    """But for the folder of the split, if that leaves them apart."""
    for name in ('train/x/a', 'train/y/a', 'val/a'):
        save(tmp_path / f'images/{name}.jpg', np.zeros((30, 30, 3)))
        save(tmp_path / f'masks/{name}.png', halves(30, 30, 3, 7))
    prepare(tmp_path)
    root = tmp_path / 'out/images'
    found = {p.relative_to(root).as_posix() for p in root.rglob('*.png')}
    assert found == {'train/x/a.png', 'train/y/a.png', 'val/a.png'}
    for name in ('train/a', 'training/a', 'val/b'):
        save(tmp_path / f'two/images/{name}.png', np.zeros((30, 30, 3)))
        save(tmp_path / f'two/masks/{name}.png', halves(30, 30, 3, 7))
    prepare(tmp_path / 'two')
    names = {p.parent.name for p in (tmp_path / 'two/out').rglob('a.png')}
    assert names == {'train', 'training'}


def test_names_of_a_file_beside_the_masks_and_of_the_user(folders):
    about = {'classes': ['sky', 'horse', 'cat'], 'palette': [[1] * 3] * 3}
    (folders / 'dataset.json').write_text(json.dumps(about))
    notes, floor, found = prepare(folders)
    assert found['classes'] == ['sky', 'horse', 'cat']
    assert found['palette'] == about['palette']
    assert 'mIoU cat' not in floor  # there is none
    prepare_pictures(
        *(folders / 'images', folders / 'masks', folders / 'own', 0),
        classes={'classes': ['left', 'right']},
    )
    found = json.loads((folders / 'own/dataset.json').read_text())
    assert found['classes'] == ['left', 'right']


def write_masks(folder, *masks, palette=None):
    for index, mask in enumerate(masks):
        size = np.shape(mask)[:2]
        save(folder / f'images/{index}.png', np.zeros((*size, 3)))
        save(folder / f'masks/{index}.png', mask, palette)


def test_black_and_white_masks(tmp_path):
    write_masks(tmp_path, *[halves(20, 20, 0, 255)] * 3)
    _, _, about = prepare(tmp_path)
    assert about['classes'] == ['background', 'foreground']
    for mask in read(tmp_path).values():
        assert (mask == halves(20, 20, 0, 1)).all()


def test_255_is_ignored_beside_other_classes(tmp_path):
    mask = halves(20, 20, 0, 1)
    mask[:5] = 255
    write_masks(tmp_path, *[mask] * 3)
    notes, _, about = prepare(tmp_path)
    assert len(about['classes']) == 2
    assert any('255 is ignored' in note for note in notes)
    assert all((m == mask).all() for m in read(tmp_path).values())


def test_palette_of_the_masks_is_kept(tmp_path):
    palette = [1, 2, 3, 200, 0, 0, 0, 200, 0]
    mask = halves(20, 20, 0, 2)
    write_masks(tmp_path, *[mask] * 3, palette=palette)
    _, _, about = prepare(tmp_path)
    assert about['palette'] == [[1, 2, 3], [0, 200, 0]]


def test_masks_in_colour(tmp_path):
    mask = np.zeros((20, 20, 3))
    mask[5:, :, 0] = 255
    mask[:, 15:] = (0, 128, 0)
    # In the first there is black alone.
    write_masks(tmp_path, np.zeros((20, 20, 3)), *[mask] * 3)
    _, _, about = prepare(tmp_path)
    # In the order of their RGB numbers, backwards.
    assert set(about['classes']) == {'#000000', '#ff0000', '#008000'}
    colours = np.array(about['palette'])
    masks = {**read(tmp_path), **read(tmp_path, 'val')}
    assert (colours[masks['1']] == mask).all()
    assert (colours[masks['0']] == 0).all()


def test_grey_masks_saved_in_rgb(tmp_path):
    grey = halves(20, 20, 0, 4)
    write_masks(tmp_path, *[np.repeat(grey[..., None], 3, 2)] * 3)
    _, _, about = prepare(tmp_path)
    assert about['classes'] == ['class 0', 'class 4']
    assert (read(tmp_path)['1'] == halves(20, 20, 0, 1)).all()


def break_nothing_found(folder):
    for path in (folder / 'images').iterdir():
        path.unlink()


def break_no_folder(folder):
    (folder / 'masks').rename(folder / 'elsewhere')


def break_no_mask(folder):
    (folder / 'masks/p4.png').unlink()


def break_size(folder):
    save(folder / 'masks/p4.png', halves(30, 31, 0, 1))


def break_picture(folder):
    (folder / 'images/p4.png').write_bytes(b'no picture')


def break_empty_picture(folder):
    (folder / 'images/p4.png').write_bytes(b'')


def break_mask(folder):
    (folder / 'masks/p4.png').write_bytes(b'no picture')


def break_cut_off_mask(folder):
    path = folder / 'masks/p8.png'
    path.write_bytes(path.read_bytes()[:-60])


def break_range(folder):
    mask = halves(140, 140, 0, 300).astype(np.uint16)
    Image.fromarray(mask).save(folder / 'masks/p4.png')


def break_some_white(folder):
    for number in (2, 4):
        path = folder / f'masks/p{number}.png'
        save(path, np.array(Image.open(path)) * 255)


def break_palette(folder):
    for number in (2, 4):
        image = Image.open(folder / f'masks/p{number}.png')
        image.putpalette([0, 0, 0, 9, 9, 9][:: 3 - number])
        image.save(folder / f'masks/p{number}.png')


def break_sign(folder):
    (folder / 'masks/p4.png').unlink()
    mask = halves(140, 140, 0, -1).astype(np.int16)
    write_tiff(folder / 'masks/p4.tif', mask)


def break_one_class(folder):
    for path in (folder / 'masks').iterdir():
        save(path, np.array(Image.open(path)) * 0)


def break_too_many(folder):
    mask = np.arange(140 * 140).reshape(140, 140) % 200
    save(folder / 'masks/p4.png', mask)


def break_mixed(folder):
    save(folder / 'masks/p4.png', np.zeros((140, 140, 3)))


def break_twice(folder):
    save(folder / 'images/p4.bmp', np.zeros((140, 140, 3)))


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (break_nothing_found, 'no pictures in .*images: looked for'),
        (break_no_folder, 'folder of masks does not exist: .*masks'),
        (break_no_mask, r'no mask for .*p4\.png: expected .*masks/p4\.png'),
        (break_size, r'p4\.png has 140 x 140 pixels, but its .* has 31 x 30'),
        (break_picture, r'p4\.png cannot be read as a picture: it is damaged'),
        (break_empty_picture, r'p4\.png cannot be read .* it is empty'),
        (break_mask, r'the mask .*p4\.png cannot be decoded'),
        (break_cut_off_mask, r'the mask .*p8\.png cannot be decoded'),
        (break_range, r'the mask .*p4\.png has 16 bits .* the value 300'),
        (
            break_some_white,
            '8 masks hold foreground .* and no 255 .*, 2 hold 255',
        ),
        (break_palette, r'palettes of the masks differ: the colour .*p4\.png'),
        (break_sign, r'the mask .*p4\.tif has 16 bits .* the value -1'),
        (break_one_class, 'one class only'),
        (break_too_many, 'hold 200 different values'),
        (break_mixed, r'the mask .*p4\.png is in RGB and .*p0\.png is not'),
        (break_twice, r'p4\.bmp and .*p4\.png have the same name'),
    ],
)
def test_unusable_folders_are_refused(folders, spoil, message):
    spoil(folders)
    with pytest.raises(UserError, match=message):
        prepare(folders)
    assert not (folders / 'out').exists()
