"""What fitted estimators answer, of those that have a density and of those that only draw."""


def answers(estimator, theta, X):
    """Return log densities of pairs, or draws, which follow from the estimator's random state."""
    if hasattr(estimator, "log_prob"):
        return estimator.log_prob(theta, X)
    return estimator.sample_posterior(X, 2, check_typicality=False, random_state=0)
