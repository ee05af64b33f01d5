"""Summaries of images: where pixels lie counts, and other images of a batch do not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbi.networks.images import ImageSummary

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


def summary(c, shape, seed=0):
    torch.manual_seed(seed)
    return ImageSummary(c, 5, shape, channels=(4, 8)).double()


def images_of(n, c, shape, seed=0):
    rng = np.random.default_rng(seed)
    return torch.as_tensor(rng.normal(2, 3, size=(n * shape[0] * shape[1], c)))


@given(n=st.integers(1, 4), c=st.integers(1, 3), shape=SHAPES, seed=st.integers(0, 99))
def test_a_batch_is_summarised_as_its_images_one_by_one(n, c, shape, seed):
    net, points, size = summary(c, shape), images_of(n, c, shape, seed), shape[0] * shape[1]
    together, _ = net(points, torch.tensor([size] * n))
    alone = [net(x, torch.tensor([size]))[0] for x in points.split(size)]
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("change", ["flipped", "turned", "shuffled"])
def test_places_count(change):
    net, points, sizes = summary(1, (8, 8)), images_of(1, 1, (8, 8)), torch.tensor([64])
    image = points.reshape(8, 8).cumsum(dim=1)
    other = {
        "flipped": image.flip(0),
        "turned": image.T,
        "shuffled": image.flatten()[torch.randperm(64)],
    }[change]
    both = [net(x.reshape(-1, 1), sizes)[0] for x in (image, other)]
    assert (both[0] - both[1]).abs().max() > 1e-3


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_summaries_stay_finite_far_from_the_training_data(scale):
    points = images_of(2, 2, (6, 5)) * scale
    assert torch.isfinite(summary(2, (6, 5))(points, torch.tensor([30, 30]))[0]).all()


def test_gradients_are_those_of_finite_differences():
    net, sizes = summary(1, (4, 3)), torch.tensor([12, 12])
    points = images_of(2, 1, (4, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, sizes)[0], points)


@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (5, 1)])
def test_powers_in_bands_are_those_of_a_slow_reference(shape):
    image = np.random.default_rng(0).normal(size=shape)
    net = ImageSummary(1, 5, shape).double()
    points = torch.as_tensor(image.reshape(-1, 1))
    found = net.arrange(points, torch.tensor([image.size]))[1][0].numpy()[13:]
    u = (image - image.mean()) / image.std()
    power = np.abs(np.fft.fft2(u)) ** 2 / u.size
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij"))
    radius = max(shape) * frequency
    with np.errstate(divide="ignore"):
        band = np.floor(2 * np.log2(radius) + 1e-4)
    bands = np.unique(band[radius > 0])
    expected = [np.log(power[band == b].mean() + 1e-6) for b in bands]
    np.testing.assert_allclose(found[: len(bands)], expected, rtol=1e-4, atol=1e-4)
