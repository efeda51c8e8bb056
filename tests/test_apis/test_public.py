# Copyright (c) mmseg_attn contributors.
"""The public Python interface: its names, and predictions in memory."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_segmentor import picture

import mmseg_attn
from mmseg_attn import apis
from mmseg_attn.apis.tasks import (
    CLIPS,
    DETECTOR,
    SEGMENTOR,
    STEREO,
    check_task,
    task_of,
)
from mmseg_attn.configs import list_configs
from mmseg_attn.errors import UserError
from mmseg_attn.models import ClipEncoderDecoder


@pytest.mark.parametrize('name', apis.__all__)
def test_each_name_is_there_and_says_what_it_is(name):
    found = getattr(apis, name)
    assert found.__name__ == name
    assert found.__doc__
    assert getattr(mmseg_attn, name) is found


def test_names_of_every_room_are_reached_from_the_top():
    from mmseg_attn.layers import CrissCrossAttention
    from mmseg_attn.models import CCHead
    from mmseg_attn.ops import criss_cross_attention

    assert mmseg_attn.CCHead is CCHead
    assert mmseg_attn.CrissCrossAttention is CrissCrossAttention
    assert mmseg_attn.criss_cross_attention is criss_cross_attention
    with pytest.raises(AttributeError, match="no attribute 'find_spec'"):
        mmseg_attn.find_spec  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        mmseg_attn.Nonsense  # noqa: B018


def test_what_is_imported_for_a_name():
    """An operator needs torch alone; nothing is printed by the hosts."""
    code = (
        'import sys, mmseg_attn\n'
        "assert 'torch' not in sys.modules\n"
        'mmseg_attn.axial_attention\n'
        "hosts = {'mmengine', 'mmcv', 'mmseg', 'mmdet'} & set(sys.modules)\n"
        'assert not hosts, hosts\n'
        'mmseg_attn.load_model\n'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'error::ResourceWarning', '-c', code],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ''


def test_predict_takes_files_and_arrays(trained, tmp_path):
    model = mmseg_attn.load_model(
        trained.config, trained.checkpoint, device='cpu'
    )
    sizes = [(64, 64), (64, 64), (72, 64), (64, 64)]
    pictures, paths = [], []
    for seed, (height, width) in enumerate(sizes):
        image, _ = picture(seed, height, width)
        pictures.append(image)
        paths.append(tmp_path / f'{seed}.png')
        cv2.imwrite(str(paths[-1]), image)
    mask = mmseg_attn.predict(model, paths[0])
    assert mask.shape == (64, 64) and mask.dtype == np.uint8
    _, truth = picture(0)
    assert (mask == truth).mean() > 0.9
    np.testing.assert_array_equal(mmseg_attn.predict(model, pictures[0]), mask)
    # Of two sizes, in batches, in the order that they were given.
    singles = [mmseg_attn.predict(model, str(path)) for path in paths]
    mixed = [pictures[0], *paths[1:]]
    batches = []
    model.backbone.register_forward_pre_hook(
        lambda module, args: batches.append(len(args[0]))
    )
    for size, expected in ((1, [1, 1, 1, 1]), (2, [2, 1, 1]), (3, [3, 1])):
        batches.clear()
        found = mmseg_attn.predict(model, mixed, batch_size=size)
        assert batches == expected
        for a, b in zip(found, singles, strict=True):
            np.testing.assert_array_equal(a, b)
    assert mmseg_attn.predict(model, []) == []


def test_predict_refuses_what_a_model_does_not_take(trained):
    model = mmseg_attn.load_model(
        trained.config, trained.checkpoint, device='cpu'
    )
    with pytest.raises(UserError, match='got a tuple.*expected single'):
        mmseg_attn.predict(model, ('left.png', 'right.png'))
    with pytest.raises(UserError, match='must be 1'):
        mmseg_attn.predict(model, ['a.png'], batch_size=0)
    with pytest.raises(UserError, match='no_such.png'):
        mmseg_attn.predict(model, 'no_such.png')


@pytest.mark.parametrize(
    'image, message',
    [
        (None, 'got a NoneType, expected a path or a picture'),
        (torch.zeros(3, 8, 8), 'got a Tensor, expected a path'),
        (Image.new('RGB', (8, 8)), r'got a Image.*np\.asarray'),
        (np.zeros((8, 8, 3)), 'dtype float64, expected uint8'),
        (np.zeros((8, 8), np.uint8), r'expected \(H, W, 3\)'),
        ('.', 'is a folder, expected a picture'),
    ],
)
def test_pictures_of_other_kinds(trained, image, message):
    model = mmseg_attn.load_model(trained.config, None, device='cpu')
    with pytest.raises(UserError, match=message):
        mmseg_attn.predict(model, image)


def test_other_things_for_a_model():
    for wrong in ('a.py', None, torch.nn.Conv2d(1, 1, 1)):
        for call in (
            lambda wrong=wrong: mmseg_attn.predict(wrong, 'a.png'),
            lambda wrong=wrong: mmseg_attn.worst(wrong),
            lambda wrong=wrong: mmseg_attn.attention_maps(
                wrong, 'a.png', [(0, 0)]
            ),
        ):
            with pytest.raises(UserError, match='a model from load_model'):
                call()


def test_values_of_other_kinds(trained, tmp_path):
    load, config, weights = mmseg_attn.load_model, trained.config, None
    model = load(config, weights, device='cpu')
    for slide in (1.5, True, (64,), (64, 0)):
        with pytest.raises(UserError, match='expected the side of a window'):
            load(config, weights, device='cpu', slide=slide)
    image = np.zeros((64, 64, 3), np.uint8)
    for pixels in (None, (4, 3), [(4.5, 3)], [('a', 'b')], [(1, 2, 3)], []):
        with pytest.raises(UserError, match='expected a list of .* in whole'):
            mmseg_attn.attention_maps(model, image, pixels)
    with pytest.raises(UserError, match='must be 1 or more, got 1.5'):
        mmseg_attn.worst(model, number=1.5)
    with pytest.raises(UserError, match='got a ndarray among the inputs'):
        mmseg_attn.predict_files(config, weights, [image], tmp_path / 'out')
    with pytest.raises(UserError, match="must be 1.*got '2'"):
        mmseg_attn.predict_files(config, weights, 'a.png', batch_size='2')


def test_a_runner_is_built_of_the_name_of_a_config():
    with pytest.raises(UserError, match='No config file no_such'):
        mmseg_attn.build_runner('no_such')
    with pytest.raises(UserError, match='got a dict, expected the path'):
        mmseg_attn.build_runner({})


def test_labels_are_checked_by_the_call_itself(trained):
    with pytest.raises(UserError, match='No config file'):
        apis.check_labels('no_such')
    with pytest.raises(UserError, match='expected some of train, val, test'):
        apis.check_labels(trained.config, 'tset')
    (one,) = apis.check_labels(trained.config, 'test')
    assert not one.problems


def test_names_are_listed_and_near_ones_asked_for():
    assert {'load_model', 'predict'} <= set(dir(mmseg_attn))
    with pytest.raises(AttributeError, match='Did you mean .*CCHead'):
        mmseg_attn.CCHaed  # noqa: B018


def test_predict_files_takes_one_path_and_says_what_is_wrong(
    trained, tmp_path
):
    cv2.imwrite(str(tmp_path / 'a.png'), picture(3)[0])
    given = trained.config, trained.checkpoint
    done = mmseg_attn.predict_files(
        *(*given, tmp_path / 'a.png', tmp_path / 'out'),
        save='mask',
        device='cpu',
    )
    assert done.done == 1
    for inputs, options, message in (
        ([], {}, 'there are no inputs'),
        (['a.png'], {'overlay_format': 'gif'}, 'expected jpg or png'),
    ):
        with pytest.raises(UserError, match=message):
            mmseg_attn.predict_files(*given, inputs, **options)


def test_predict_files_is_the_command(trained, tmp_path):
    image, _ = picture(3)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    given = trained.config, trained.checkpoint, [tmp_path / 'a.png']
    out = tmp_path / 'out'
    first = mmseg_attn.predict_files(*given, out, device='cpu')
    assert (first.inputs, first.done, first.failed) == (1, 1, 0)
    model = mmseg_attn.load_model(*given[:2], device='cpu')
    np.testing.assert_array_equal(
        np.array(Image.open(out / 'mask/a.png')),
        mmseg_attn.predict(model, image),
    )
    again = mmseg_attn.predict_files(*given, out, device='cpu')
    assert (again.done, again.earlier) == (0, 1)


def test_the_worst_are_what_the_ranking_says(trained):
    model = mmseg_attn.load_model(
        trained.config, trained.checkpoint, device='cpu'
    )
    ranking = mmseg_attn.worst(model, 'test', number=2)
    values = [row[0] for row in ranking.rows]
    assert values == sorted(values) and len(values) > 2
    assert [score.path for score in ranking.worst] == [
        row[1] for row in ranking.rows[:2]
    ]
    assert ranking.pictures[0].shape == (*ranking.worst[0].truth.shape, 3)


def test_the_task_of_every_config():
    """By their folders, which the code does not look at."""
    expected = {
        'ccnet3d': CLIPS,
        'psmnet': STEREO,
        'faster_rcnn': DETECTOR,
        'mask_rcnn': DETECTOR,
    }
    seen = set()
    for path in list_configs():
        name, folder = path.stem, path.parent.name
        if folder in seen and folder != 'demo':
            continue
        seen.add(folder)
        task = expected.get(folder, SEGMENTOR)
        if folder == 'demo':
            kinds = {'clips': CLIPS, 'psmnet': STEREO, 'rcnn': DETECTOR}
            found = [kinds[kind] for kind in kinds if kind in name]
            task = found[0] if found else SEGMENTOR
        try:
            cfg = Config.fromfile(path)
        except ModuleNotFoundError as error:
            assert error.name == 'mmdet'
            continue
        assert task_of(cfg) is task, path


def test_a_class_of_the_users_own_has_its_parents_task():
    class Own(ClipEncoderDecoder):
        pass

    assert task_of(Config(dict(model=dict(type=Own)))) is CLIPS
    assert task_of(Config(dict(model=dict(type='NoSuchModel')))) is SEGMENTOR
    assert task_of(Config({})) is SEGMENTOR


def test_another_task_is_refused(tmp_path):
    (tmp_path / 'a.py').touch()
    cfg = Config(dict(default_scope='mmdet'), filename=tmp_path / 'a.py')
    check_task(cfg, SEGMENTOR, DETECTOR)
    expected = 'a.py is of a detector, expected a segmentor or a stereo'
    with pytest.raises(UserError, match=expected):
        check_task(cfg, SEGMENTOR, STEREO)


def test_config_options_change_a_config(trained):
    cfg = apis.load_config(trained.config, {'model.decode_head.channels': 7})
    assert cfg.model.decode_head.channels == 7
    assert apis.load_config(cfg) is cfg
    for entry in ('test_pipeline.9.type', 'model.decode_head.channels.x'):
        with pytest.raises(UserError, match=f'entries {entry} cannot all be'):
            apis.load_config(trained.config, {entry: 3})


def test_flops_are_counted():
    layer = torch.nn.Linear(4, 8, bias=False)
    assert apis.count_flops(layer, torch.zeros(3, 4)) == 2 * 3 * 4 * 8


@pytest.fixture
def one_logit(trained):
    """The tiny segmentor with one logit of the foreground, by its weights."""
    cfg = Config.fromfile(trained.config)
    saved = torch.load(trained.checkpoint, weights_only=False)
    weights = saved['state_dict']
    for name in ('weight', 'bias'):
        both = weights[f'decode_head.conv_seg.{name}']
        weights[f'decode_head.conv_seg.{name}'] = both[1:] - both[:1]
    cfg.model.pop('auxiliary_head')
    # The sigmoid of the difference is the softmax of two.
    cfg.model.decode_head.update(out_channels=1, threshold=0.5)
    model = mmseg_attn.load_model(cfg, None, device='cpu')
    model.load_state_dict(
        {k: v for k, v in weights.items() if not k.startswith('auxiliary')}
    )
    return model


def test_one_logit_is_two_logits(one_logit, trained, tmp_path):
    """Alone, averaged over views, and in a ranking."""
    two = mmseg_attn.load_model(
        trained.config, trained.checkpoint, device='cpu'
    )
    pictures = [picture(seed)[0] for seed in range(3)]
    for model in (one_logit, two):
        for kind in ('SegTTAModel', 'mmseg.SegTTAModel'):
            model.cfg.tta_model = dict(type=kind)
            model.cfg.tta_pipeline = [
                dict(type='LoadImageFromFile'),
                dict(
                    type='TestTimeAug',
                    transforms=[
                        [
                            dict(type='Resize', scale=(size, size))
                            for size in (48, 64, 96)
                        ],
                        [
                            dict(type='RandomFlip', prob=prob)
                            for prob in (0.0, 1.0)
                        ],
                        [dict(type='PackSegInputs')],
                    ],
                ),
            ]
    for tta in (False, True):
        found = mmseg_attn.predict(one_logit, pictures, tta=tta)
        expected = mmseg_attn.predict(two, pictures, tta=tta)
        for a, b in zip(found, expected, strict=True):
            assert set(np.unique(b)) == {0, 1}
            assert (a == b).mean() > 0.999
    ranking = mmseg_attn.worst(one_logit)
    expected = mmseg_attn.worst(two)
    values = [[row[0] for row in r.rows] for r in (ranking, expected)]
    np.testing.assert_allclose(*values, rtol=0, atol=0.1)
