# Copyright (c) mmseg_attn contributors.
import pytest
import torch

from mmseg_attn.ops.core import matmul


@pytest.mark.parametrize('works', [True, False])
@pytest.mark.parametrize('shape', [(3, 5, 7, 9), (2, 130, 97, 400)], ids=str)
def test_products_whatever_library_serves(shape, works, monkeypatch):
    """Against float64, for plain and transposed matrices."""
    n, i, k, j = shape
    if works and not matmul._onednn_works():
        pytest.skip('this processor or torch has no such oneDNN product')
    monkeypatch.setattr(matmul, '_onednn_works', lambda: works)
    a, b = torch.randn(n, i, k), torch.randn(n, k, j)
    expected = (a.double() @ b.double()).float()
    close = dict(rtol=1e-4, atol=1e-4)
    for left in (a, a.mT.contiguous().mT):
        for right in (b, b.mT.contiguous().mT):
            got = matmul.bmm(left, right)
            torch.testing.assert_close(got, expected, **close)
            one = matmul.mm(left[0], right[0])
            torch.testing.assert_close(one, expected[0], **close)
    target = torch.full((n, j, i), torch.nan).mT
    matmul.bmm_into(target, a, b)
    torch.testing.assert_close(target, expected, **close)
    matmul.bmm_into(target, a, b, accumulate=True)
    torch.testing.assert_close(target, 2 * expected, **close)


def test_falls_back_if_torch_changes(monkeypatch):
    def changed(x, y):
        raise TypeError('another signature')

    monkeypatch.setattr(matmul, '_onednn', changed)
    assert not matmul._onednn_works.__wrapped__()
