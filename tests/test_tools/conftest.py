# Copyright (c) mmseg_attn contributors.
import itertools
import time
from types import SimpleNamespace

import pytest

_SECONDS = itertools.count(int(time.time()))


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    """Spare each Runner the seconds of asking compilers for versions."""
    pytest.importorskip('mmseg')
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


@pytest.fixture(autouse=True)
def second_of_its_own(monkeypatch):
    """Those that start in one second would share logs and pictures."""
    pytest.importorskip('mmseg')
    clock = SimpleNamespace(
        time=lambda: float(next(_SECONDS)),
        localtime=time.localtime,
        strftime=time.strftime,
    )
    monkeypatch.setattr('mmengine.runner.runner.time', clock)
