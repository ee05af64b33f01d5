"""Errors of shape say what came and what it may become."""

import numpy as np
import pytest

from skbi import NLEEstimator, NPEEstimator
from skbi.preprocessing.packed import pack
from skbi.preprocessing.shapes import describe_uneven_rows, describe_width

QUICK = {"max_iter": 1, "n_transforms": 1, "hidden_layer_sizes": (8,), "random_state": 0}
RNG = np.random.default_rng(0)
THETA, CURVES = RNG.normal(size=(40, 2)), RNG.normal(size=(40, 14))


def uneven(n=40):
    """Return curves of 8 and of 14 days."""
    return [x[: 8 if i % 2 else 14] for i, x in enumerate(CURVES[:n])]


@pytest.mark.parametrize("form", [list, tuple, lambda rows: [row.tolist() for row in rows]])
@pytest.mark.parametrize("kind", [NPEEstimator, NLEEstimator])
def test_rows_of_different_lengths_are_told_what_they_may_become(kind, form):
    message = r"X must be .*different lengths, \[14, 8, .*NaN.*'mask'.*\(S_i, 1\), np\.reshape"
    with pytest.raises(ValueError, match=message):
        kind(**QUICK).fit(THETA, form(uneven()))
    with pytest.raises(ValueError, match=r"theta .*different lengths.* hold all parameters"):
        kind(**QUICK).fit(form([row[: 1 + i % 2] for i, row in enumerate(THETA)]), CURVES)


def test_what_errors_propose_works():
    rows = uneven()
    assert pack([np.reshape(x, (-1, 1)) for x in rows]).sizes.tolist() == [len(x) for x in rows]
    padded = np.array([np.pad(x, (0, 14 - len(x)), constant_values=np.nan) for x in rows])
    npe = NPEEstimator(missing="mask", **QUICK).fit(THETA, padded)
    assert npe.sample_posterior(padded[1], 5, check_typicality=False).shape == (5, 2)
    assert len(pack(np.stack(list(CURVES)))) == 40


@pytest.mark.parametrize("values", [3, None, [1, 2], [[1], [2]], ["a", "bc"], [[1, [2]], [3, 4]]])
def test_other_values_are_not_called_uneven(values):
    assert describe_uneven_rows(values, of_observations=True) is None


def test_vectors_and_sets_are_not_mixed():
    with pytest.raises(ValueError, match=r"different shapes, \[\(14,\), \(3, 14\)\]: all must be"):
        pack([CURVES[0], CURVES[:3]])
    objects = np.empty(2, dtype=object)
    objects[:] = [CURVES[0], CURVES[1]]
    with pytest.raises(ValueError, match=r"are one array, np\.stack\(X\)"):
        pack(objects)


@pytest.mark.parametrize(
    ("kind", "options", "width", "way_out"),
    [
        (NPEEstimator, {}, 8, r".*missing='mask' .*pad X with NaN to 14 .*fit to .*these 8\."),
        (NPEEstimator, {"missing": "mask"}, 8, r"Pad X with NaN to 14 features"),
        (
            NPEEstimator,
            {"missing": "mask"},
            15,
            "Pass the 14 features of fit, or fit to .*these 15",
        ),
        (NLEEstimator, {}, 8, "Pass the 14 features of fit, or fit to simulations of these 8"),
    ],
)
def test_observations_of_another_width_are_told_the_way_out(kind, options, width, way_out):
    estimator = kind(**QUICK, **options).fit(THETA, CURVES)
    message = f"X has {width} features, but {kind.__name__} is expecting 14 features as input. "
    for X in (np.ones(width), np.ones((3, width))):
        with pytest.raises(ValueError, match=message + way_out):
            estimator.log_prob(THETA[:1], X)


def test_points_of_another_width_are_not_to_be_padded():
    assert "NaN" not in describe_width(1, 2, 3, "error")
