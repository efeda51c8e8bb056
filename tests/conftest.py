# Copyright (c) mmseg_attn contributors.
import pytest
from mmengine.registry import init_default_scope


@pytest.fixture(autouse=True)
def mmseg_scope():
    """Each test starts in mmseg's scope, whatever one before it chose."""
    init_default_scope('mmseg')
