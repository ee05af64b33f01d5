"""What is a prior, and the one message to what is not."""

import numpy as np
import pytest
import torch
from hierarchical import Hierarchical
from scipy import stats

from skbi import JointPrior, NPEEstimator, Prior, sequential, simulate
from skbi.priors import check_prior

ASKED = ("names", "discrete", "support", "sample", "log_prob", "cdf", "ppf")


def simulator(theta, rng):
    return theta


def test_the_documentation_names_all_that_is_asked_and_what_is_optional():
    for name in (*ASKED, "to_normal", "from_normal"):
        assert f"``{name}" in Prior.__doc__


def test_joint_priors_and_a_users_own_are_priors():
    for prior in (JointPrior({"a": stats.norm()}), Hierarchical()):
        check_prior(prior)
        assert isinstance(prior, Prior)


@pytest.mark.parametrize("name", ASKED)
def test_one_message_names_what_a_prior_lacks(name):
    own = {key: value for key, value in vars(Hierarchical).items() if key in ASKED and key != name}
    for bases in ((), (Prior,)):  # what is inherited from the protocol does nothing
        kind = type("Incomplete", bases, own | {"__init__": lambda self: None})
        with pytest.raises(TypeError, match=rf"Incomplete, which lacks \['{name}'\].*help\("):
            check_prior(kind())


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (torch.distributions.Normal(0.0, 1.0), r"torch.*lacks.*JointPrior\(\{\('a', 'b'\): prior"),
        (stats.norm(0, 1), r"rv_continuous_frozen, which lacks.*JointPrior\(\{'theta'"),
        ({"a": stats.norm()}, r"builtins.dict, which lacks.*JointPrior\(\{'theta'"),
        (Hierarchical, "got the class Hierarchical. Call it first"),
        (None, "NoneType, which lacks"),
    ],
)
def test_what_is_no_prior_is_refused_before_any_work(prior, message):
    with pytest.raises(TypeError, match=message):
        simulate(prior, simulator, 10)
    with pytest.raises(TypeError, match=message):
        sequential(prior, simulator, [0.0], NPEEstimator())
    if prior is not None:
        with pytest.raises(TypeError, match=message):
            NPEEstimator(prior=prior).fit(np.zeros((10, 1)), np.zeros((10, 1)))


@pytest.mark.parametrize(("name", "value"), [("discrete", [False]), ("support", [[0, 1]])])
def test_attributes_fit_the_names(name, value):
    prior = type("Uneven", (Hierarchical,), {name: np.array(value)})()
    with pytest.raises(ValueError, match=rf"{name} of Uneven must have shape \(2.*got \(1"):
        simulate(prior, simulator, 10)
