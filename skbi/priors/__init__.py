"""Priors, and the map from parameters to Gaussian coordinates that have no bounds.

p(theta) = prod_j p_j(theta_j),   z_j = Phi^-1(F_j(theta_j)) ~ N(0, 1).
"""

from skbi.priors.gaussian import from_latent, from_normal, off_bounds, to_normal
from skbi.priors.joint import JointPrior
from skbi.priors.protocol import Prior, check_prior
from skbi.priors.values import bounds_of_values, log_masses, possible_values

__all__ = [
    "JointPrior",
    "Prior",
    "bounds_of_values",
    "check_prior",
    "from_latent",
    "from_normal",
    "log_masses",
    "off_bounds",
    "possible_values",
    "to_normal",
]
