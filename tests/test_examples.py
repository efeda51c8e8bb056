# Copyright (c) mmseg_attn contributors.
"""Examples in the docstrings of operators and layers give what they say."""

import doctest
import importlib
import pkgutil

import pytest

from mmseg_attn import layers, ops

MODULES = [
    f'{room.__name__}.{module.name}'
    for room in (ops, layers)
    for module in pkgutil.iter_modules(room.__path__)
    if not module.ispkg
]


@pytest.mark.parametrize('module', MODULES)
def test_examples(module):
    failed, _ = doctest.testmod(importlib.import_module(module))
    assert not failed, 'see the output above'


@pytest.mark.parametrize(
    'public',
    [
        getattr(room, name)
        for room in (ops, layers)
        for name in room.__all__
        if name != 'backends'
    ],
    ids=lambda public: public.__name__,
)
def test_each_shows_its_shapes(public):
    examples = doctest.DocTestParser().get_examples(public.__doc__)
    assert any('torch.Size' in example.want for example in examples)
