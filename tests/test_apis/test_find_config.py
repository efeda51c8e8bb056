# Copyright (c) mmseg_attn contributors.
from pathlib import Path

import pytest

from mmseg_attn.configs import find_config
from mmseg_attn.errors import UserError

NAME = 'ccnet_r50-d8_4xb2-40k_cityscapes-512x1024'


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py', f'ccnet/{NAME}.py'])
def test_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(find_config(name))
    assert path.name == f'{NAME}.py' and path.parent.name == 'ccnet'
    assert path.is_file()


def test_a_path_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(f'{NAME}.py').write_text('model = None')
    assert find_config(f'{NAME}.py') == f'{NAME}.py'


@pytest.mark.parametrize(
    'name, message',
    [
        ('ccnet_r50-d8_4xb2-40k_cityscape', f'Did you mean .*{NAME}'),
        ('qqq.py', 'none of the .* packaged configs'),
        ('.', 'is a folder'),
        ('default_runtime', 'No config file'),  # a part, not a config
    ],
)
def test_errors(name, message):
    with pytest.raises(UserError, match=message):
        find_config(name)
