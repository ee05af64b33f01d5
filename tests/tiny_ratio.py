"""A tiny ratio estimator, written against the public interfaces: log r = log p(x | theta) / p(x).

A classifier tells pairs (theta_i, x_i) from contrasts (theta_j, x_i); its logit is log r. Hermans
et al., Likelihood-free MCMC with amortized approximate ratio estimators, 2019,
https://arxiv.org/abs/1903.04057.
"""

import torch
from torch.nn.functional import softplus

from skbi.estimators import BaseSBIEstimator, LearntLikelihood, SampledPosterior
from skbi.networks import MLP
from skbi.preprocessing import Maps, to_tensor
from skbi.training import Ensemble, Member


class Classifier(Member):  # noqa: D101
    def __init__(self, width, hidden_layer_sizes):
        super().__init__()
        self.network = MLP(width, 1, hidden_layer_sizes)

    def forward(self, z, x):
        return self.network(torch.cat([z, x], dim=-1))[..., 0]


class Ratio(LearntLikelihood):  # noqa: D101
    def parts(self):
        return [to_tensor(self.maps.X.forward(self.observation.points), self.ensemble.like)]

    def embed(self, z):
        return [z for _ in self.ensemble.members]

    def log_prob(self, part, contexts):
        pairs = zip(self.ensemble.members, contexts, strict=True)
        return self.ensemble.mix([m(z, part.expand(len(z), -1)) for m, z in pairs]).double()


class TinyNRE(SampledPosterior, BaseSBIEstimator):  # noqa: D101
    def __init__(
        self, *, prior=None, hidden_layer_sizes=(32, 32), n_estimators=1, batch_size="auto",
        learning_rate_init="auto", alpha=0.1, max_iter=60, early_stopping=True, tol=1e-3,
        validation_fraction=0.1, n_iter_no_change=20, warm_start=False, random_state=None,
        verbose=0, device="cpu",
    ):  # fmt: skip
        vars(self).update((k, v) for k, v in locals().items() if k not in ("self", "__class__"))

    def _fit_maps(self, data, rng):
        return Maps.fit(self.prior, data.theta, data.X, False, flat_coordinates=False)

    def _specify(self, data, maps):
        width = data.theta.shape[1] + maps.X.width
        return {"n_axes": 2, "width": width, "hidden": tuple(self.hidden_layer_sizes)}

    def _build(self, architecture):
        return Classifier(architecture["width"], architecture["hidden"])

    def _objective(self, training, data, maps, rng):
        like = training.weights.values
        z = to_tensor(maps.theta.forward(data.theta)[0], like)
        weights, indexer = to_tensor(data.weights, like), maps.indexer(data.X, like, rng)

        def objective(rows, fraction):
            x, others = indexer.take(rows).points, rows.roll(1)
            of_pairs = softplus(-training.each(lambda member: member(z[rows], x)))
            of_contrasts = softplus(training.each(lambda member: member(z[others], x)))
            row_weights = torch.cat([weights[rows], weights[rows] * weights[others]])
            return torch.cat([of_pairs, of_contrasts], dim=1), row_weights

        return objective

    def _likelihoods(self, X, prior, *, every_member=False):
        ensemble = Ensemble(self.members_).active()
        return [Ratio(ensemble, self._maps, X[i : i + 1], prior) for i in range(len(X))]
