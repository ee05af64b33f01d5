"""Priors, and the map from parameters to Gaussian coordinates that have no bounds.

p(theta) = prod_j p_j(theta_j),   z_j = Phi^-1(F_j(theta_j)) ~ N(0, 1).
"""

from skbi.priors.gaussian import from_latent, from_normal, off_bounds, to_normal
from skbi.priors.joint import JointPrior
from skbi.priors.protocol import Prior, check_prior

__all__ = [
    "JointPrior",
    "Prior",
    "check_prior",
    "from_latent",
    "from_normal",
    "off_bounds",
    "to_normal",
]
