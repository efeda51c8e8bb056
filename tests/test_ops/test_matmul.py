# Copyright (c) mmseg_attn contributors.
import pytest
import torch

from mmseg_attn.ops.core import device, matmul


@pytest.mark.parametrize('works', [True, False])
@pytest.mark.parametrize('shape', [(3, 5, 7, 9), (2, 130, 97, 400)], ids=str)
def test_products_whatever_library_serves(shape, works, monkeypatch):
    """Against float64, for plain and transposed matrices."""
    n, i, k, j = shape
    if works and not matmul.onednn_works():
        pytest.skip('this processor or torch has no such oneDNN product')
    monkeypatch.setattr(matmul, 'onednn_works', lambda: works)
    a, b = torch.randn(n, i, k), torch.randn(n, k, j)
    expected = (a.double() @ b.double()).float()
    close = dict(rtol=1e-4, atol=1e-4)
    for left in (a, a.mT.contiguous().mT):
        for right in (b, b.mT.contiguous().mT):
            got = matmul.bmm(left[None], right[None])[0]
            torch.testing.assert_close(got, expected, **close)
            one = matmul.mm(left[0], right[0])
            torch.testing.assert_close(one, expected[0], **close)
    target = torch.full((n, j, i), torch.nan).mT
    matmul.bmm_into(target[None], a[None], b[None])
    torch.testing.assert_close(target, expected, **close)
    matmul.bmm_into(target[None], a[None], b[None], accumulate=True)
    torch.testing.assert_close(target, 2 * expected, **close)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize('leads', [(1, 3), (3, 2), (2, 3)], ids=str)
def test_products_of_a_gpu(leads, dtype, monkeypatch):
    """Of matrices with gaps, into such and into rows of several axes."""
    monkeypatch.setattr(device, 'on_gpu', lambda x: True)
    a = torch.randn(leads[0], 4, leads[1], 5).to(dtype).transpose(1, 2)
    b = torch.randn(leads[0], 5, leads[1], 6).to(dtype).transpose(1, 2)
    expected = torch.einsum('mnik,mnkj->mnij', a.double(), b.double())
    wide = matmul.bmm(a, b)
    assert wide.dtype == matmul.accumulator(dtype)
    torch.testing.assert_close(wide.double(), expected, rtol=0, atol=1e-5)
    close = dict(rtol=0, atol=1e-12 if dtype == torch.float64 else 0.1)
    for target in (
        a.new_full((leads[0], 4, leads[1], 6), torch.nan).transpose(1, 2),
        a.new_full((*leads, 2, 6, 2), torch.nan).mT,
        a.new_full((2, *leads, 2, 6), torch.nan).permute(1, 2, 0, 3, 4),
    ):
        for times in (1, 2):
            matmul.bmm_into(target, a, b, accumulate=times == 2)
            got = target.reshape(expected.shape).double()
            torch.testing.assert_close(got, times * expected, **close)


@pytest.mark.parametrize('heads', [1, 3])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('n', [7, 512, 1031])
def test_sums_over_positions(n, dtype, heads, monkeypatch):
    """Whatever is left of parts is counted; fp32 is nearer to the truth."""
    monkeypatch.setattr(device, 'on_gpu', lambda x: True)
    torch.manual_seed(0)
    a, b = (torch.rand(2, n, heads, d).to(dtype) for d in (5, 6))
    truth = torch.einsum('bnhi,bnhj->bhij', a.double(), b.double())
    got = matmul.over_positions(a, b)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), truth, rtol=3e-6, atol=0)


def test_small_sums_over_positions_are_many_products():
    """One row of outputs for each part of the positions, on a device."""
    made = []
    a, b = (torch.empty(1, 2**14, 8, d, device='meta') for d in (32, 64))
    with pytest.MonkeyPatch.context() as patch:
        real = torch.bmm
        patch.setattr(
            torch,
            'bmm',
            lambda x, y, **k: made.append(len(x)) or real(x, y, **k),
        )
        matmul.over_positions(a, b)
    assert made == [128] * 8


@pytest.mark.parametrize('has', [True, False])
def test_product_of_narrow_floats_is_fp32_on_any_torch(has, monkeypatch):
    monkeypatch.setattr(matmul, '_HAS_WIDE_PRODUCT', has)
    a = torch.empty(2, 3, 4, 5, dtype=torch.bfloat16, device='meta')
    assert matmul.bmm(a, a.mT).dtype == torch.float32


@pytest.mark.parametrize('size', [1e6, 1e-12])
def test_longest_row_of_an_operand_in_fp16_is_of_unit_length(size):
    x = size * torch.randn(2, 3, 4, 5)
    got, factor = matmul.operand(x, torch.float16)
    torch.testing.assert_close(got * factor, x, rtol=1e-2, atol=1e-3 * size)
    assert got.float().norm(dim=-1).amax().item() == pytest.approx(1, abs=1e-2)
    assert matmul.operand(x, torch.float32) == (x, None)
    zeros, _ = matmul.operand(torch.zeros(1, 2, 2), torch.float16)
    assert zeros.eq(0).all()


def test_falls_back_if_torch_changes(monkeypatch):
    def changed(x, y):
        raise TypeError('another signature')

    monkeypatch.setattr(matmul, '_onednn', changed)
    assert not matmul.onednn_works.__wrapped__()
