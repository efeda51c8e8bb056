# Copyright (c) mmseg_attn contributors.
"""What is said of a config whose host is not there, or whose names are not."""

import re
import sys

import pytest
from mmcv.cnn import ConvModule
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_attn.engine.config_errors import (
    check_installed,
    config_mistakes,
    unknown_types,
)
from mmseg_attn.engine.pretrained import load_from_anywhere, read_checkpoint
from mmseg_attn.errors import UserError, near


def test_config_of_a_host_that_is_not_installed(monkeypatch):
    """One without bases can be read without MMDetection."""
    monkeypatch.setitem(sys.modules, 'mmdet', None)
    check_installed(Config(dict(default_scope='mmseg')))
    check_installed(Config())
    with pytest.raises(UserError, match='MMDetection is not installed.*-det'):
        check_installed(Config(dict(default_scope='mmdet')))


def test_config_of_a_host_that_is_not_whole(monkeypatch):
    monkeypatch.setattr(
        'importlib.util.find_spec', lambda name: name == 'mmdet'
    )
    with pytest.raises(UserError, match='no compiled operators.*MMCV_WITH_OP'):
        check_installed(Config(dict(default_scope='mmdet')))


def test_near_names():
    names = ['iter_2000.pth', 'iter_4000.pth', 'notes.txt']
    said = near('iter_400.pth', names)
    assert said == ' Did you mean iter_4000.pth or iter_2000.pth?'
    assert near('iter_400.pth', iter(names)) == said
    assert near('best.pth', ['best_mIoU_iter_4.pth']) == ''
    assert 'best_mIoU' in near('best.pth', ['best_mIoU_iter_4.pth'], 0.5)


def test_names_near_one_that_nothing_provides():
    with pytest.raises(UserError) as error, unknown_types():
        MODELS.build(dict(type='mmseg_attn.CCHaed'))
    assert str(error.value).startswith(
        "the config asks for type='mmseg_attn.CCHaed', which nothing "
        'provides. Did you mean mmseg_attn.CCHead'
    )
    with pytest.raises(UserError) as error, unknown_types():
        MODELS.build(dict(type='Xyzzy123'))
    assert str(error.value).endswith('which nothing provides.')


@pytest.mark.parametrize(
    'name, what',
    [
        (
            'mmpretrain.Nope',
            'MMPreTrain is not .* install (onedl-)?mmpretrain',
        ),
        ('mmdet.Nope', 'MMDetection is not .* pip install'),
        ('xyzzy123.Nope', 'xyzzy123 is not installed'),
        ('.Nope', ''),
    ],
)
def test_types_of_a_package_that_is_not_installed(name, what, monkeypatch):
    for package in ('mmpretrain', 'mmdet'):
        monkeypatch.setitem(sys.modules, package, None)
    message = rf'{re.escape(name)}.*, which nothing provides\. ?{what}'
    with pytest.raises(UserError, match=message), unknown_types():
        raise KeyError(f'{name} is not in the mmseg::model registry')


def test_module_that_cannot_be_imported(tmp_path, monkeypatch):
    (tmp_path / 'shard').mkdir()
    (tmp_path / 'shard' / 'broken.py').write_text('1 / 0')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as error, config_mistakes('the model'):
        MODELS.build(dict(type='shard.broken.Head'))
    assert str(error.value) == (
        "the config asks for type='shard.broken.Head', whose module cannot be "
        "imported: ZeroDivisionError('division by zero')"
    )


def test_other_errors_pass():
    """Also from within the building of a model."""
    with pytest.raises(KeyError, match='width'), unknown_types():
        {}['width']
    with pytest.raises(OSError), config_mistakes('the model'):
        raise OSError('no place')
    with pytest.raises(MemoryError), config_mistakes('the model'):
        raise MemoryError


def test_arguments_of_the_type_in_a_base():
    """Such as the dilations of an ASPP head in whose place ours stands."""
    head = dict(type='mmseg_attn.CCHead', dilations=(1, 12), in_channels=8)
    head.update(channels=8, num_classes=2)
    message = "'dilations'.* put _delete_=True beside the new type"
    with (
        pytest.raises(UserError, match=message),
        config_mistakes('the model'),
    ):
        MODELS.build(head)


def test_assertions_are_mistakes_with_words_or_without():
    with (
        pytest.raises(UserError, match='"assert norm_cfg is None or .*" does'),
        config_mistakes('the model'),
    ):
        ConvModule(1, 1, 1, norm_cfg='BN')
    with (
        pytest.raises(UserError, match='built: too wide'),
        config_mistakes('the model'),
    ):
        raise AssertionError('too wide')


def test_a_misspelt_argument_of_a_head_has_a_near_name():
    """Also one that a parent of the head takes."""
    head = dict(type='mmseg_attn.CCHead', in_channels=8, chanels=4)
    head.update(num_classes=2)
    with (
        pytest.raises(UserError, match=r'chanels.*Did you mean channels'),
        config_mistakes('the model'),
    ):
        MODELS.build(head)


def test_weights_that_cannot_be_fetched(tmp_path, monkeypatch):
    """The line has where from, where to, and what leaves them out."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    url = 'http://127.0.0.1:9/resnet.pth'
    with pytest.raises(UserError) as error:
        load_from_anywhere(url)
    said = str(error.value)
    for word in (url, f'{tmp_path}/hub/checkpoints', '--scratch', '=None'):
        assert word in said
    with pytest.raises(UserError) as error:  # of a model it is all there is
        read_checkpoint(url)
    assert '--scratch' not in str(error.value)
