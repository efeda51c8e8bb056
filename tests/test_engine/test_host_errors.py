# Copyright (c) mmseg_attn contributors.
"""The texts of other packages' errors, as those installed here word them."""

import importlib
import sys

import cv2
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, TRANSFORMS
from mmseg.datasets import BaseSegDataset
from torch import nn

from mmseg_attn.hosts import HostError


def unknown_type(folder):
    MODELS.build(dict(type='FCNHaed'))


def unexpected_argument(folder):
    MODELS.build(dict(type='FCNHead', in_chanels=3))


def broken_module(folder):
    # A name that nothing else has, and that no finder has looked for yet.
    (folder / 'parts_of_hosts').mkdir()
    (folder / 'parts_of_hosts' / 'broken.py').write_text('1 / 0')
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        MODELS.build(dict(type='parts_of_hosts.broken.Head'))
    finally:
        sys.path.remove(str(folder))


def no_sample(folder):
    BaseSegDataset(
        data_root=str(folder),
        data_prefix=dict(img_path='', seg_map_path=''),
        metainfo=dict(classes=('one', 'two')),
    )


def no_picture(folder):
    path = folder / 'a.png'
    path.write_text('not a picture')
    LoadImageFromFile()(dict(img_path=str(path)))


def empty_picture(folder):
    path = folder / 'a.png'
    path.touch()
    LoadImageFromFile()(dict(img_path=str(path)))


def wrong_channels(folder):
    nn.Conv2d(4, 8, 3)(torch.zeros(1, 3, 8, 8))


def one_value(folder):
    nn.BatchNorm2d(8)(torch.zeros(1, 8, 1, 1))


def out_of_memory(folder):
    torch.empty(1 << 50)


def our_base(folder):
    path = folder / 'a.py'
    path.write_text("_base_ = 'mmseg_attn::ccnet/b.py'")
    Config.fromfile(path)


# Entry of the table -> what provokes it, and the type that is caught.
PROVOKED = {
    HostError.OUR_BASE: (our_base, AssertionError),
    HostError.UNKNOWN_TYPE: (unknown_type, KeyError),
    HostError.UNEXPECTED_ARGUMENT: (unexpected_argument, TypeError),
    HostError.BROKEN_MODULE: (broken_module, RuntimeError),
    HostError.NO_SAMPLE: (no_sample, ValueError),
    HostError.NO_PICTURE: (no_picture, AssertionError),
    HostError.EMPTY_PICTURE: (empty_picture, cv2.error),
    HostError.WRONG_CHANNELS: (wrong_channels, RuntimeError),
    HostError.ONE_VALUE: (one_value, ValueError),
    HostError.OUT_OF_MEMORY: (out_of_memory, RuntimeError),
}


@pytest.mark.parametrize('entry', HostError)
def test_error_is_told_by_its_text(entry, tmp_path, device):
    """On a GPU memory ends with other words."""
    assert entry in PROVOKED, f'add what provokes HostError.{entry.name}'
    provoke, kind = PROVOKED[entry]
    with pytest.raises(kind) as error:
        provoke(tmp_path)
    found = [item for item in HostError if item.found_in(error.value)]
    assert found == [entry], (
        f'a host words it otherwise than hosts.HostError.{entry.name}: '
        f'{error.value!r}'
    )


@pytest.mark.parametrize('registry', [MODELS, DATASETS, TRANSFORMS])
@pytest.mark.parametrize('name', ['FCNHaed', 'mmseg_attn.CCHaed', 'no.such'])
def test_unknown_name_is_read_from_the_error(registry, name):
    with pytest.raises(KeyError) as error:
        registry.build(dict(type=name))
    assert HostError.UNKNOWN_TYPE.found_in(error.value)[1] == name


def test_reason_of_a_broken_module_is_its_context(tmp_path):
    with pytest.raises(RuntimeError) as error:
        broken_module(tmp_path)
    found = HostError.BROKEN_MODULE.found_in(error.value)
    assert found[1] == 'parts_of_hosts.broken.Head'
    assert isinstance(error.value.__context__, ZeroDivisionError)
