"""Axes and names are those given, or else made up."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from figures import THETA, blank_axes

from skbi import CoverageDisplay, LossCurveDisplay, PosteriorDisplay, RankDisplay
from skbi.plotting.axes import as_axes, coloured_columns, colours, curve_names


def test_axes_are_those_given_or_new_ones():
    given = blank_axes(2)
    assert list(as_axes(list(given), 2)) == list(given)
    assert list(as_axes(given[0], 1)) == [given[0]]
    new = as_axes(None, 2)
    assert len(set(new)) == 2
    assert new[0].figure is new[1].figure is not given[0].figure
    many = as_axes(None, 9)
    assert len(many) == len(many[0].figure.axes) == 9
    assert many[0].get_gridspec().ncols == 3
    with pytest.raises(ValueError, match="ax must hold 2 axes; got 1"):
        as_axes(given[0], 2)


def test_of_a_search_the_best_estimator_is_drawn(fitted):
    npe, theta, X = fitted
    search = SimpleNamespace(best_estimator_=npe)
    options = {"n_samples": 20, "random_state": 0}
    for estimator in (npe, search):
        ranks = RankDisplay.from_estimator(estimator, theta, X, **options)
        coverage = CoverageDisplay.from_estimator(estimator, theta, X, **options)
        posterior = PosteriorDisplay.from_estimator(estimator, X[0], **options)
        loss = LossCurveDisplay.from_estimator(estimator)
        assert ranks.names == coverage.names == list(posterior.names) == ["a", "b"]
        assert loss.loss_curve == npe.loss_curve_


def test_columns_have_colours_and_names():
    assert len(set(colours(7))) == 7
    assert colours(8)[7] == colours(1)[0]
    columns = list(coloured_columns(["a", "b"], THETA))
    assert [name for _, name, _ in columns] == ["a", "b"]
    np.testing.assert_array_equal(columns[1][2], THETA[:, 1])


def test_a_joint_curve_is_named_for_its_kind():
    assert curve_names("rank", 2, ["a", "b"]) == ["a", "b"]
    assert curve_names("tarp", 1, ["a", "b"]) == ["TARP"]
    assert curve_names("hpd", 1, None) == ["highest density"]


def test_skbi_itself_does_not_import_matplotlib():
    code = "import sys, skbi; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
