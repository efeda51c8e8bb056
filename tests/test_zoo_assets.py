# Copyright (c) mmseg_attn contributors.
"""The models that were trained here: files, rows, and what they score.

What is not read from the files is asked of the metafile itself, so that the
package's reader is no witness for itself.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest
import torch
import yaml

from mmseg_attn.apis import zoo
from mmseg_attn.apis.reproduction import SCENES, use_data_root, validate
from mmseg_attn.configs import list_configs, load_config
from mmseg_attn.datasets.scenes import write_folder
from mmseg_attn.engine.pretrained import read_checkpoint

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'resources/zoo'
MODELS = yaml.safe_load((FOLDER / 'metafile.yaml').read_text())['Models']
KEYS = {'Weights': 'SHA256', 'Safetensors': 'Safetensors SHA256'}
EACH = pytest.mark.parametrize(
    'model', MODELS, ids=[model['Short Name'] for model in MODELS]
)
CAMVID = [model for model in MODELS if model['Results']['Dataset'] == 'CamVid']


def files_of(model):
    return [ROOT / model[key] for key in KEYS]


@EACH
def test_files_are_those_of_the_row(model):
    """Small, named by their hash, and with each weight of the config."""
    for (key, sums), suffix in zip(
        KEYS.items(), ('.pth', '.safetensors'), strict=True
    ):
        path = ROOT / model[key]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert model[sums] == digest
        assert path.name == f'{model["Short Name"]}-{digest[:8]}{suffix}'
        assert path.stat().st_size < 3e6
        found = zoo.verify_checkpoint(path)
        assert 'as in the metafile' in found
        assert found.endswith(f'weights are those of {model["Name"]}')


@EACH
def test_both_formats_say_the_same(model):
    one, two = (read_checkpoint(path) for path in files_of(model))
    assert one['meta'] == two['meta'] and one['meta']['dataset_meta']
    # No folder of the machine of the training.
    assert not re.search(r'[\'"]/\w|work_dir', one['meta']['cfg'])
    weights, others = one['state_dict'], two['state_dict']
    assert weights._metadata == others._metadata
    assert weights.keys() == others.keys()
    for key, value in weights.items():
        assert value.dtype == others[key].dtype
        assert torch.equal(value, others[key])


@EACH
def test_rows_say_what_trained_them(model):
    config = ROOT / model['Config']
    assert config.is_file() and config.stem == model['Name']
    seed, miou = next(iter(model['Seeds'].items()))
    assert model['Results']['Metrics']['mIoU'] == miou
    assert model['Command'] == (
        f'python -m mmseg_attn train {model["Name"]} --cfg-options '
        f'randomness.seed={seed}'
    )
    # Those of CamVid are in training.
    assert len(model['Seeds']) >= 3 or model in CAMVID
    assert model['Metadata']['Training Resources']


def test_results_of_trainings_are_those_of_the_rows():
    """What `compare --camvid` wrote, kept so that it can be continued."""
    files = [*(ROOT / 'resources/compare/camvid/trainings').glob('*.json')]
    assert files
    for path in files:
        method, _, seed = path.stem.partition('_seed-')
        (model,) = (m for m in CAMVID if m['Name'].startswith(f'{method}_r18'))
        found = json.loads(path.read_text())
        miou = round(found['metrics']['mIoU'], 2)
        assert model['Seeds'][int(seed)] == miou
        assert found['settings']['config']['randomness']['seed'] == int(seed)
        assert found['settings']['config']['train_cfg']['max_iters'] == 3000
        assert '"/' not in path.read_text()  # no place of a machine


def test_names_are_clear():
    shorts = [model['Short Name'] for model in MODELS]
    assert len({*shorts}) == len(shorts)
    assert all(re.fullmatch('[a-z0-9_]+', short) for short in shorts)
    assert not {*shorts} & {path.stem for path in list_configs()}
    rows = zoo.list_checkpoints()
    assert [row.short for row in rows[: len(shorts)]] == shorts  # ours first
    assert {'demo_fcn', 'demo_ccnet_r1', 'demo_ccnet'} <= {*shorts}


def test_no_file_is_left_over():
    named = {path for model in MODELS for path in files_of(model)}
    assert {*FOLDER.iterdir()} == {*named, FOLDER / 'metafile.yaml'}


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    """The scenes that ``reproduce`` draws."""
    folder = tmp_path_factory.mktemp('scenes')
    write_folder(folder)
    return folder


def score(model, data, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    cfg = load_config(model['Name'])
    use_data_root(cfg, data)
    return validate(cfg, ROOT / model['Weights'])['mIoU']


DRAWN = [model for model in MODELS if model['Results']['Dataset'] == SCENES]


@pytest.mark.parametrize('model', DRAWN, ids=lambda m: m['Short Name'])
def test_the_scenes_give_the_stated_miou(model, scenes, monkeypatch):
    stated = model['Results']['Metrics']['mIoU']
    assert score(model, scenes, monkeypatch) == pytest.approx(stated, abs=0.1)


@pytest.mark.parametrize('model', CAMVID, ids=lambda m: m['Short Name'])
def test_camvid_gives_the_stated_miou(model, monkeypatch):
    real = os.environ.get('MMSEG_ATTN_REAL_DATA')
    data = Path(real or '', 'camvid')
    if not real or not data.is_dir():
        pytest.skip('no folder camvid in $MMSEG_ATTN_REAL_DATA')
    stated = model['Results']['Metrics']['mIoU']
    assert score(model, data, monkeypatch) == pytest.approx(stated, abs=0.1)


def test_no_row_escapes_its_measurement():
    """Each row is of data for which there is a test above; all of one folder
    of configs are of the same."""
    assert len(DRAWN) + len(CAMVID) == len(MODELS)
    by_place = [m for m in MODELS if m['Config'].startswith('configs/camvid/')]
    assert by_place == CAMVID
    if CAMVID:
        shorts = {model['Short Name'] for model in CAMVID}
        assert {'camvid_fcn', 'camvid_ccnet'} <= shorts
