"""Parameters as a regression reads them: proportional to theta where the prior is flat, else z."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from skbi import JointPrior
from skbi.estimators.regressors import ReadsParameters
from skbi.preprocessing.coordinates import ParameterMap


class Reader(ReadsParameters, nn.Module):
    """A member that does nothing else."""

    def __init__(self, p):
        super().__init__()
        self._register(p)


def test_without_a_prior_the_regressors_are_the_parameters():
    theta = np.random.default_rng(0).uniform(3, 5, (100, 2))
    parameters, reader = ParameterMap.fit(None, theta), Reader(2)
    reader.read(parameters)
    z = torch.as_tensor(parameters.forward(theta)[0])
    torch.testing.assert_close(reader.double().regressors(z), z)


@pytest.mark.parametrize("low", [-1.0, 50.0])
def test_a_flat_parameter_is_standardised_and_another_one_is_z(low):
    prior = JointPrior({"flat": stats.uniform(low, 3), "other": stats.gamma(2)})
    theta = prior.sample(100, random_state=0)
    parameters, reader = ParameterMap.fit(prior, theta), Reader(2)
    reader.read(parameters)
    z = torch.as_tensor(parameters.forward(theta)[0])
    w = reader.double().regressors(z).numpy()
    uniform = stats.uniform(low, 3)
    np.testing.assert_allclose(w[:, 0], (theta[:, 0] - uniform.mean()) / uniform.std(), atol=1e-6)
    np.testing.assert_array_equal(w[:, 1], z[:, 1])
