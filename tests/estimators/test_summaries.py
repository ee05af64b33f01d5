"""What observations pass through before a flow."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from skbi.estimators.summaries import check_module, embed_observations, embedder, summarise
from skbi.networks import DeepSet
from skbi.preprocessing import Maps, pack
from skbi.preprocessing.batches import Batch


class Mean(nn.Module):
    """A user's summary of sets."""

    def forward(self, points, sizes):
        """Average each set."""
        return torch.stack([part.mean(dim=0) for part in points.split(sizes.tolist())])


class Fixed(nn.Module):
    """A member whose summary is its network."""

    def __init__(self, summary, width):
        super().__init__()
        self.summary, self.n_context = summary, width
        self.start = nn.Parameter(torch.zeros(1))

    def embed_observations(self, batch):
        """Summarise."""
        return summarise(self.summary, batch)


def test_vectors_are_their_own_summary_within_bounds():
    x = torch.tensor([[0.1, -2.0, 1e6]])
    h = summarise(None, Batch(x))
    torch.testing.assert_close(h[0, :2], x[0, :2], rtol=1e-4, atol=0)
    assert h.abs().max() <= 8


def test_a_module_is_tried_and_its_width_told():
    batch = Batch(torch.randn(5, 3), torch.tensor([2, 3]))
    assert check_module(Mean(), batch) == 3
    with pytest.raises(ValueError, match=r"points of width 3 and sizes \(n,\) to \(n, c\); Linear"):
        check_module(nn.Linear(3, 2), batch)
    with pytest.raises(ValueError, match=r"n = 5; got shape \(5,\)"):
        check_module(nn.Flatten(0), Batch(torch.randn(5, 1)))


def test_embeddings_do_not_depend_on_the_blocks_and_moments_are_those_of_sets():
    rng = np.random.default_rng(0)
    sets = [rng.normal(2, 3, size=(size, 2)) for size in (3, 700, 20)]
    X = pack(sets)
    maps = Maps.fit(None, rng.normal(size=(3, 1)), X, False)
    member = Fixed(DeepSet(2, 4), 4)
    (context,), moments, frame = embed_observations(X, maps, [member])
    assert frame is None
    for i, x in enumerate(sets):
        (alone,), *_ = embed_observations(X[i : i + 1], maps, [member])
        torch.testing.assert_close(context[i], alone[0], rtol=1e-4, atol=1e-5)
        scaled = maps.X.forward(x)
        np.testing.assert_allclose(moments[i, :2], scaled.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(moments[i, 2:], np.log(scaled.std(axis=0)), atol=1e-4)


class Recorded(nn.Module):
    """A user's module that records how many rows it is given at a time."""

    def __init__(self, network, sizes):
        super().__init__()
        self.network, self.sizes = network, sizes

    def __deepcopy__(self, memo):
        return Recorded(copy.deepcopy(self.network, memo), self.sizes)

    def forward(self, x):
        """Apply the network."""
        self.sizes.append(len(x))
        return self.network(x)


@pytest.mark.parametrize(
    ("network", "divided"),
    [(nn.Linear(500, 2), True), (nn.BatchNorm1d(500), False), (nn.Dropout(), False)],
)
def test_minibatches_are_divided_if_a_module_takes_observations_one_by_one(network, divided):
    sizes, x = [], torch.randn(160, 500)
    member = Fixed(Recorded(network, sizes), 2).train()
    training = SimpleNamespace(members=[member], weights=SimpleNamespace(values=x, trained=[0]))
    maps = SimpleNamespace(batch=lambda some, like: Batch(some))
    embed = embedder(training, maps, x)
    del sizes[:]
    state = torch.get_rng_state()
    out = embed(Batch(x))
    assert (max(sizes) < 160) == divided
    torch.set_rng_state(state)
    torch.testing.assert_close(out[0], summarise(network.train(), Batch(x)))
