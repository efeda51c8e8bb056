# Copyright (c) mmseg_attn contributors.
"""Configs that cannot be read end in one line with the place in the file."""

import pytest

from mmseg_attn.configs import find_config, load_config
from mmseg_attn.errors import UserError

BASE = f'_base_ = {find_config("fcn_r18-s4_1xb8-1k_demo-scenes-96x96")!r}\n'


@pytest.mark.parametrize(
    'name, text, message',
    [
        ('a.py', BASE + 'model = dict(\n', r"a\.py, line 2: '\(' was never"),
        ('a.py', BASE + '\nx = nope\n', r"a\.py, line 3: NameError: .*'nope'"),
        ('a.py', BASE + 'import nope_2\n', r'a\.py, line 2: No module named'),
        ('a.py', "y = 1 + 'a'\n", r'a\.py, line 1: TypeError: unsupported'),
        ('a.py', "_base_ = 'b.py'\n", r'a\.py: its base .*b\.py does not'),
        ('a.py', "_base_ = 'a.py'\n", r'a\.py: its bases .* lead back to it'),
        ('a.py', '_base_ = 5\n', r'a\.py: TypeError'),
        (
            'a.py',
            "_base_ = 'mmseg_attn::ccnet/b.py'\n",
            r"a\.py: .*; instead: _base_ = __import__\('mmseg_attn'\)",
        ),
        ('a.py', '\0', r'a\.py: source code string cannot contain null'),
        ('a.json', '{"model": ', r'a\.json, line 1: Expecting value'),
        ('a.yaml', 'model: [1,\n', r'a\.yaml, line 2: expected the node'),
        ('a.txt', 'x = 1', r'a\.txt: Only py/yml/yaml/json'),
    ],
)
def test_the_place_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=rf'config .*{message}') as caught:
        load_config(path)
    assert '\n' not in str(caught.value)


def test_a_base_is_named_where_it_is_the_base(tmp_path):
    (tmp_path / 'base.py').write_text('\n\nx = undefined\n')
    (tmp_path / 'a.py').write_text("_base_ = 'base.py'\n")
    with pytest.raises(UserError, match=r'config .*base\.py, line 3: NameEr'):
        load_config(tmp_path / 'a.py')


def test_text_of_another_encoding(tmp_path):
    (tmp_path / 'a.py').write_text('x = 1\n', encoding='utf-16')
    with pytest.raises(UserError, match=r'config .*a\.py: UnicodeDecodeError'):
        load_config(tmp_path / 'a.py')
