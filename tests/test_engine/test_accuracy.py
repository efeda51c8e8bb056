"""The accuracy beside the losses is mmseg's, found without a sort."""

import pytest
import torch
from mmengine.runner import Runner

from mmseg_attn.engine import runner
from mmseg_attn.engine.accuracy import USER, quick_accuracy

heads = pytest.importorskip(USER)
# Of another place, so that the wrong one being left there is seen.
host = pytest.importorskip('mmseg.models.losses').accuracy


@pytest.mark.parametrize(
    ('shape', 'ignore'),
    [((3, 5, 7, 9), 255), ((3, 5, 7, 9), 2), ((2, 1, 4, 4), 255)]
    + [((6, 4), None), ((2, 3, 2, 2, 2), 0)],
)
def test_it_is_the_hosts(shape, ignore):
    torch.manual_seed(0)
    scores = torch.randn(shape, requires_grad=True)
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]))
    if ignore == 255:
        labels[0] = 255
    with quick_accuracy():
        assert heads.accuracy is not host
        found = heads.accuracy(scores, labels, ignore_index=ignore)
        several = heads.accuracy(scores, labels, (1,), None, ignore)
    expected = host(scores, labels, ignore_index=ignore)
    assert found.shape == expected.shape and not found.requires_grad
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(several, [expected])


def test_nothing_counts():
    scores, labels = torch.randn(2, 3, 4, 4), torch.full((2, 4, 4), 255)
    for count in (2, 0):
        given = scores[:count], labels[:count]
        with quick_accuracy():
            found = heads.accuracy(*given, ignore_index=255)
        assert found.item() == host(*given, ignore_index=255).item()


def test_a_tie_counts_once():
    """In bfloat16 many scores are equal."""
    torch.manual_seed(0)
    scores = torch.randint(0, 3, (4, 5, 9, 9)).bfloat16()
    labels = torch.randint(0, 5, (4, 9, 9))
    with quick_accuracy():
        parts = [
            heads.accuracy(scores, torch.full_like(labels, number))
            for number in range(5)
        ]
    assert sum(parts).item() == pytest.approx(100)


def test_the_hosts_is_put_back():
    with pytest.raises(KeyError), quick_accuracy():
        raise KeyError
    assert heads.accuracy is host


def test_a_training_uses_it(monkeypatch):
    seen = []
    monkeypatch.setattr(
        Runner, 'train', lambda self: seen.append(heads.accuracy)
    )
    # What it would run is not built: its training is replaced.
    runner._Runner.train(object.__new__(runner._Runner))
    assert seen and seen[0] is not host
