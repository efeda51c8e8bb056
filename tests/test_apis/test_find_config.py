# Copyright (c) mmseg_attn contributors.
from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_attn import configs, metafiles
from mmseg_attn.__main__ import main
from mmseg_attn.configs import find_config, load_config, training_crop
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
        (f'sanet/{NAME}.py', 'none of the .* packaged configs'),
        ('.', 'is a folder'),
        ('', 'the current folder is a folder'),
        ('default_runtime', 'No config file'),  # a part, not a config
    ],
)
def test_errors(name, message):
    with pytest.raises(UserError, match=message):
        find_config(name)


def write_method(root, *names):
    """A package whose one method has these configs."""
    folder = root / 'configs/strip'
    folder.mkdir(parents=True)
    for name in names:
        (folder / f'{name}.py').touch()
    (folder / 'metafile.yaml').write_text('Collections: [{Name: Strip}]')
    index = 'Import: [configs/strip/metafile.yaml]'
    (root / 'model-index.yml').write_text(index)


@pytest.fixture
def one_method(tmp_path, monkeypatch):
    monkeypatch.setattr(metafiles, 'package_roots', lambda: [tmp_path])
    metafiles.method_titles.cache_clear()
    yield tmp_path
    metafiles.method_titles.cache_clear()


def test_a_method_needs_its_metafile_alone(one_method):
    names = [
        f'strip_{b}_4xb2-80k_cityscapes-512x1024' for b in ('r50-d8', 'r18')
    ]
    write_method(one_method, *names)
    assert metafiles.method_titles() == {'strip': 'Strip'}
    table = configs.benchmark_table()
    assert '| benchmark | [Strip](configs/strip/README.md) |' in table
    assert '| Cityscapes | R-18, R-50 |' in table
    (one_method / 'model-index.yml').write_text('Import: []')
    metafiles.method_titles.cache_clear()
    with pytest.raises(UserError, match='configs/strip/metafile.yaml to mod'):
        configs.benchmark_table()


@pytest.mark.parametrize(
    'name, message',
    [
        ('r7_4xb2-80k_lip-9x9', 'the backbone r7, .* it to BACKBONES in'),
        ('r50_4xb2-80k_moon-9x9', 'the benchmark moon, .* BENCHMARKS in'),
    ],
)
def test_what_has_no_title_is_named(one_method, name, message):
    write_method(one_method, f'strip_{name}')
    with pytest.raises(UserError, match=message):
        configs.benchmark_table()


def test_a_copy_in_one_piece(tmp_path, monkeypatch, capsys):
    """It says the same without the package's folder, and is not replaced."""
    monkeypatch.chdir(tmp_path)
    words = ['config', NAME, '--dest', 'own']
    main(words)
    expected = load_config(NAME).to_dict()
    said = capsys.readouterr().out
    assert said.endswith(f'Next: python -m mmseg_attn train own/{NAME}.py\n')
    text = Path(f'own/{NAME}.py').read_text()
    assert '_base_' not in text
    monkeypatch.setattr(configs, 'list_configs', lambda: [])
    assert load_config(f'own/{NAME}.py').to_dict() == expected
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    main(words)  # the same again is no harm
    with pytest.raises(SystemExit, match='another content'):
        main([*words, '--cfg-options', 'train_cfg.max_iters=3'])
    assert Path(f'own/{NAME}.py').read_text() == text


def test_the_size_of_training_crops():
    cfg = Config(dict(model=dict(data_preprocessor=None), crop_size=(8, 6)))
    assert training_crop(cfg) == (8, 6)
    cfg.model.data_preprocessor = dict(size=[4, 5])
    assert training_crop(cfg) == (4, 5)
    assert training_crop(Config(dict(crop_size=7))) == (7, 7)
    assert training_crop(Config(dict(model={}))) is None
