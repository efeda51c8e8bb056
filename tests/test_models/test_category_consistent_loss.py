# Copyright (c) mmseg_attn contributors.
import pytest
import torch
import torch.nn.functional as F

from mmseg_attn.models.losses import CategoryConsistentLoss


def as_written(features, label, near=0.5, far=1.5, min_pixels=1):
    """The paper's formulas, class by class and pixel by pixel."""
    pixels = features.movedim(1, -1).reshape(-1, features.shape[1])
    label = label.flatten()
    groups = [
        pixels[label == c]
        for c in label.unique().tolist()
        if c != 255 and (label == c).sum() >= min_pixels
    ]
    centres = [g.mean(0) for g in groups]
    variance = distance = regularisation = 0.0
    for group, centre in zip(groups, centres, strict=True):
        total = 0.0
        for pixel in group:
            d = torch.dist(centre, pixel)
            if d > far:
                total = total + d - far + (far - near) ** 2
            elif d > near:
                total = total + (d - near) ** 2
        variance = variance + total / len(group)
        regularisation = regularisation + centre.norm()
    count = len(groups)
    for i in range(count):
        for j in range(count):
            gap = torch.dist(centres[i], centres[j])
            if i != j and gap <= 2 * far:
                distance = distance + (2 * far - gap) ** 2
    return (
        variance / count
        + (distance / (count * (count - 1)) if count > 1 else 0.0)
        + 0.001 * regularisation / count
    )


def batch(classes=4, size=(5, 6), scale=1.0):
    generator = torch.Generator().manual_seed(0)
    features = scale * torch.randn(2, 3, *size, generator=generator)
    label = torch.randint(0, classes, (2, *size), generator=generator)
    label[:, 0, :2] = 255
    return features.requires_grad_(), label


@pytest.mark.parametrize('deltas', [(), (0.3, 0.9)])
@pytest.mark.parametrize('scale', [0.1, 1.0, 3.0])
@pytest.mark.parametrize('classes', [1, 2, 5])
def test_equals_the_formulas(classes, scale, deltas):
    features, label = batch(classes, scale=scale)
    loss = CategoryConsistentLoss(*deltas)(features, label)
    expected = as_written(features, label, *deltas)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    a, b = (
        torch.autograd.grad(x, features, retain_graph=True)[0]
        for x in (loss, expected)
    )
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def around_zero(distance):
    """One class with centre 0 and two pixels at the given distance."""
    features = torch.zeros(1, 2, 1, 2)
    features[0, 0, 0] = torch.tensor([distance, -distance])
    return features.requires_grad_(), torch.zeros(1, 1, 2, dtype=torch.long)


@pytest.mark.parametrize(
    'distance, piecewise, quadratic',
    [
        (0.0, 0.0, 0.0),
        (0.5, 0.0, 0.0),
        (1.0, 0.25, 0.25),
        (1.5, 1.0, 1.0),
        (1.5001, 1.0001, 1.0002),
        (2.5, 2.0, 4.0),
    ],
)
def test_variance_term(distance, piecewise, quadratic):
    for variance, expected in (
        ('piecewise', piecewise),
        ('quadratic', quadratic),
    ):
        features, label = around_zero(distance)
        loss = CategoryConsistentLoss(variance=variance)(features, label)
        assert loss.item() == pytest.approx(expected, abs=1e-5)
        loss.backward()
        assert features.grad.isfinite().all()


def test_distance_and_regularisation_terms():
    """Two classes of one pixel each, 2 apart: (3 - 2)^2 and the norms."""
    features = torch.tensor([[[[0.0, 2.0]]]])
    label = torch.tensor([[[3, 7]]])
    loss = CategoryConsistentLoss(alpha=0, beta=2.0, gamma=0.1)
    expected = 2.0 * 1 + 0.1 * (0 + 2) / 2
    assert loss(features, label).item() == pytest.approx(expected, abs=1e-5)
    far = CategoryConsistentLoss(gamma=0)
    assert far(2 * features, label).item() == 0


def test_all_ignored_is_zero_with_zero_gradients():
    features, label = batch()
    loss = CategoryConsistentLoss()(features, torch.full_like(label, 255))
    loss.backward()
    assert loss == 0 and (features.grad == 0).all()


def test_ignored_pixels_do_not_count():
    features, label = batch()
    changed = features.detach().clone()
    changed.movedim(1, -1)[label == 255] = 1e3
    loss = CategoryConsistentLoss()
    assert loss(features, label) == loss(changed, label)
    other = label.masked_fill(label == 255, 9)
    assert loss(changed, other, ignore_index=9) == loss(changed, label)


def test_min_pixels_leaves_rare_classes_out():
    features, label = batch()
    label[0, 1, 1] = 17  # one pixel
    counted = CategoryConsistentLoss(min_pixels=2)(features, label)
    expected = as_written(features, label, min_pixels=2)
    torch.testing.assert_close(counted, expected, rtol=1e-5, atol=1e-6)
    assert counted != CategoryConsistentLoss()(features, label)


def test_labels_of_any_size_and_rank():
    features, label = batch()
    loss = CategoryConsistentLoss()
    large = F.interpolate(label[:, None].float(), scale_factor=4).long()
    assert loss(features, large) == loss(features, label)
    up = CategoryConsistentLoss(resize='feature')(features, large)
    enlarged = F.interpolate(features, (20, 24), mode='bilinear')
    torch.testing.assert_close(up, loss(enlarged, large))


def test_labels_where_the_corners_align():
    """A 769 crop at stride 8: feature i lies on pixel 8 i, as the paper's."""
    label = torch.arange(769).expand(1, 769, 769) // 8 * 8
    features = torch.randn(1, 3, 97, 97)
    loss = CategoryConsistentLoss(align_corners=True)
    pixels = label[:, ::8, ::8]
    assert loss(features, label) == loss(features, pixels)


def test_is_fp32_under_autocast():
    features, label = batch()
    half = features.detach().bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        loss = CategoryConsistentLoss()(half, label)
    assert loss.dtype == torch.float32
    assert loss == CategoryConsistentLoss()(half.float(), label)


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(delta_var=2.0),
        dict(min_pixels=0),
        dict(variance='cubic'),
        dict(resize='both'),
        dict(loss_name='ccl'),
    ],
)
def test_bad_arguments_are_explained(kwargs):
    (name,) = kwargs
    with pytest.raises(ValueError, match=name):
        CategoryConsistentLoss(**kwargs)


def test_bad_inputs_are_explained():
    features, label = batch()
    with pytest.raises(ValueError, match=r'\(2, 3, 5, 6\).*\(1, 5, 6\)'):
        CategoryConsistentLoss()(features, label[:1])
    with pytest.raises(TypeError, match='float32'):
        CategoryConsistentLoss()(features, label.float())
