# Copyright (c) mmseg_attn contributors.
"""The table of exported heads, of one head."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmseg')
pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')
pytest.importorskip('openvino')
# Its modules find each other beside the script.
sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools/benchmark'))
pytest.importorskip('report', reason='not in a checkout')


@pytest.mark.slow
def test_a_head_in_all_formats(tmp_path):
    import heads

    heads.main(['--heads', 'LAHead', '--out', str(tmp_path)])
    found = json.loads((tmp_path / 'heads.json').read_text())['heads']
    assert list(found) == ['LAHead']
    assert set(found['LAHead']) == {'ONNX Runtime', 'OpenVINO', '.pt2'}
    for sizes in found['LAHead'].values():
        assert len(sizes) == 3 and '64 x 96' not in sizes
        assert all(0 <= item['logits'] <= 1e-4 for item in sizes.values())
        assert any(item['logits'] > 0 for item in sizes.values())
    table = (tmp_path / 'heads.md').read_text()
    assert '| LAHead |' in table and 'traced at 64 x 96' in table
