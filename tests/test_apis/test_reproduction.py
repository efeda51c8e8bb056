# Copyright (c) mmseg_attn contributors.
"""``reproduce`` on rows whose trainings are short."""

from pathlib import Path

import pytest
import yaml
from tiny_segmentor import config_text, write_dataset

from mmseg_attn import metafiles
from mmseg_attn.__main__ import main
from mmseg_attn.apis import reproduction
from mmseg_attn.configs import find_config

VAL = """
val_dataloader, val_evaluator = test_dataloader, test_evaluator
val_cfg = dict(type='ValLoop')
"""


@pytest.fixture
def write_row(tmp_path, monkeypatch):
    """Make a package of one model, of this config."""
    root = tmp_path / 'root'
    (root / 'configs/tiny').mkdir(parents=True)
    (root / 'model-index.yml').write_text('Import: [configs/tiny/meta.yaml]')
    monkeypatch.setattr(metafiles, 'package_roots', lambda: [root])
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.chdir(tmp_path)

    def write(text, data, seeds):
        (root / 'configs/tiny/tiny_discs.py').write_text(text)
        row = {
            'Name': 'tiny_discs',
            'Short Name': 'tiny',
            'In Collection': 'Tiny',
            'Config': 'configs/tiny/tiny_discs.py',
            'Results': {'Dataset': data, 'Metrics': {'mIoU': seeds[3]}},
            'Metadata': {'Architecture': ['R-18', 'Tiny']},
            'Command': 'train',
            'Seeds': seeds,
            'Weights': 'resources/zoo/tiny-00000000.pth',
        }
        (root / 'configs/tiny/meta.yaml').write_text(
            yaml.safe_dump({'Models': [row]}, sort_keys=False)
        )

    return write


def test_it_compares_and_goes_on(write_row, tmp_path, capsys):
    write_dataset(tmp_path / 'mine', 24)
    text = config_text('nowhere') + VAL
    write_row(text, 'Discs', {3: 20.0, 1: 20.2, 2: 20.1})
    words = ['reproduce', 'tiny', '--data-root', 'mine']
    assert main(words) == 1
    said = capsys.readouterr().out
    assert 'trained anew with seed 3' in said
    assert 'mean 20.10, standard deviation 0.10' in said
    assert said.endswith('allowed are 0.30 (3 standard deviations): it does '
                         'not agree\n')  # fmt: skip
    miou = float(said.split('val mIoU: ')[1].split()[0])
    assert miou > 80
    weights = Path('work_dirs/tiny/iter_40.pth')
    before = weights.stat().st_mtime_ns
    # The training is done: the same command measures alone.
    write_row(text, 'Discs', {3: miou, 1: miou + 1, 2: miou - 1})
    assert not main(words)
    said = capsys.readouterr().out
    assert 'from the mean: +0.00, allowed are 3.00' in said
    assert said.endswith('it agrees\n')
    assert weights.stat().st_mtime_ns == before


def test_scenes_are_drawn_and_the_seed_is_that_of_the_row(
    write_row, monkeypatch
):
    name = 'fcn_r18-s4_1xb8-1k_demo-scenes-96x96'
    base = Path(metafiles.__file__).parents[1] / f'configs/demo/{name}.py'
    write_row(
        f"_base_ = '{base}'\ntrain_cfg = dict(max_iters=2, val_interval=9)\n"
        'default_hooks = dict(checkpoint=dict(interval=2))\n'
        'test_dataloader = dict(dataset=dict(data_prefix=dict('
        "img_path='images/train', seg_map_path='masks/train')))\n",
        'Drawn scenes',
        {3: 1.0},
    )
    write = reproduction.write_folder
    monkeypatch.setattr(
        reproduction, 'write_folder', lambda out: write(out, 0, 8, 4)
    )
    seen = []
    build = reproduction.build_runner

    def note(cfg, **kwargs):
        seen.append(cfg)
        return build(cfg, **kwargs)

    monkeypatch.setattr(reproduction, 'build_runner', note)
    main(['reproduce', 'tiny', '--work-dir', 'here'])
    train, measured = seen
    assert train.randomness.seed == 3 and train.work_dir == 'here'
    roots = {
        cfg[f'{split}_dataloader'].dataset.data_root
        for cfg in seen
        for split in ('train', 'val', 'test')
    }
    assert roots == {'here/data'}
    prefix = measured.test_dataloader.dataset.data_prefix
    assert prefix.img_path == 'images/val'
    assert Path(measured.load_from) == Path('here/iter_2.pth').resolve()


def test_what_others_trained_is_refused():
    name = 'ccnet_r50-d8_4xb2-40k_cityscapes-512x1024'
    assert find_config(name)
    with pytest.raises(SystemExit, match='trained by others.*demo_fcn'):
        main(['reproduce', name])
