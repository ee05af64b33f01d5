"""Vector fields: zero at first, and the same for points however they are arranged."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from skbi.networks.vector_fields import VectorField, describe_angle


def trained(sizes=(6, 6), p=2, c=3):
    """Return a field that is not zero."""
    torch.manual_seed(0)
    field = VectorField(p, c, sizes).double()
    torch.nn.init.normal_(field.last.weight)
    return field


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_a_field_is_zero_until_it_is_trained(sizes):
    field = VectorField(2, 3, sizes)
    condition = field.condition(torch.randn(5, 3))
    assert (field(torch.randn(5, 2), torch.rand(5), condition) == 0).all()


def test_points_of_an_observation_are_points_of_their_own():
    field, context = trained(), torch.randn(4, 3, dtype=torch.float64)
    y, angle = torch.randn(4, 7, 2, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    together = field(y, angle, field.condition(context).unsqueeze(1))
    repeated = field.condition(context.repeat_interleave(7, dim=0))
    alone = field(y.flatten(0, 1), angle.expand(28), repeated)
    torch.testing.assert_close(together.flatten(0, 1), alone)


def test_everything_that_a_field_reads_matters():
    field = trained()
    y, angle = torch.randn(1, 2, dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    context = torch.randn(1, 3, dtype=torch.float64)
    found = field(y, angle, field.condition(context))
    for other in (
        field(y + 0.1, angle, field.condition(context)),
        field(y, angle + 0.1, field.condition(context)),
        field(y, angle, field.condition(context + 0.1)),
    ):
        assert not torch.allclose(found, other)


def test_what_is_read_of_an_angle_is_bounded_and_tells_angles_apart():
    angle = torch.linspace(0, math.pi / 2, 1000, dtype=torch.float64)
    read = describe_angle(angle)
    assert read.shape == (1000, 5)
    assert read.abs().max() < 2
    assert (read[1:] - read[:-1]).norm(dim=1).min() > 1e-5


def test_shrinkage_leaves_the_linear_paths_and_the_last_layer_alone():
    field = VectorField(2, 3, (6, 5))
    shrunk = {id(w) for w in field.shrunk()}
    left = {name for name, w in field.named_parameters() if id(w) not in shrunk}
    assert {"last.weight", "last.bias", "of_angle.weight", "skips.0.weight"} <= left
    assert len(shrunk) == 3
