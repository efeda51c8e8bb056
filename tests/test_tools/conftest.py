# Copyright (c) mmseg_attn contributors.
import pytest


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    """Spare each Runner the seconds of asking compilers for versions."""
    pytest.importorskip('mmseg')
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
