"""The methods, behind one face: fit pairs, then draw and score."""

import tempfile
from functools import partial

import numpy as np

from examples.benchmarks.tasks import GaussianPrior
from skbi import CMPEEstimator, FMPEEstimator, NLEEstimator, NPEEstimator, NREEstimator


class Skbi:
    """skbi's NPE, or another estimator of posteriors, with its defaults but for the options."""

    learns = "posterior"

    def __init__(self, seed, kind=NPEEstimator, **options):
        self.kind, self.options = kind, {"random_state": seed, **options}

    def fit(self, task, theta, X):
        """Learn from pairs."""
        options = {"prior": task.prior, "summary": task.summary, **self.options}
        self.estimator = self.kind(**options).fit(theta, X)
        return self

    def sample_posterior(self, X_obs, n_samples, *, random_state=0):
        """Draw (n_obs, n_samples, p)."""
        return self.estimator.sample_posterior(X_obs, n_samples, random_state=random_state)

    def log_prob(self, theta, X):
        """Log density of pairs (n,), NaN where there is none."""
        if not hasattr(self.estimator, "log_prob"):
            return np.full(len(theta), np.nan)
        return self.estimator.log_prob(theta, X)


class SkbiNLE:
    """skbi's NLE and its sampler with their defaults; counts are dequantized."""

    learns = "likelihood"

    def __init__(self, seed):
        self.seed = seed

    def fit(self, task, theta, X):
        """Learn from pairs."""
        options = {"dequantize": task.dequantize, "random_state": self.seed}
        self.nle = NLEEstimator(prior=task.prior, **options).fit(theta, X)
        return self

    def sample_posterior(self, X_obs, n_samples, *, random_state=0):
        """Draw (n_obs, n_samples, p)."""
        return self.nle.sample_posterior(X_obs, n_samples, random_state=random_state)

    def log_prob(self, theta, X):
        """Log density of pairs (n,)."""
        return self.nle.log_prob(theta, X)


class SkbiNRE:
    """skbi's NRE and its sampler with their defaults; its log score is a mean log ratio."""

    learns = "ratio"

    def __init__(self, seed, **options):
        self.options = {"random_state": seed, **options}

    def fit(self, task, theta, X):
        """Learn from pairs."""
        options = {"prior": task.prior, "summary": task.summary, **self.options}
        self.nre = NREEstimator(**options).fit(theta, X)
        return self

    def sample_posterior(self, X_obs, n_samples, *, random_state=0):
        """Draw (n_obs, n_samples, p)."""
        return self.nre.sample_posterior(X_obs, n_samples, random_state=random_state)

    def log_prob(self, theta, X):
        """Log ratio of pairs (n,)."""
        return self.nre.log_prob(theta, X)


class Sbi:
    """sbi's NPE with its defaults; sets go through its permutation-invariant embedding.

    Its densities are scored as they are learnt: outside a bounded prior, where its `sample` rejects
    draws, a part of them is lost.
    """

    learns = "posterior"

    def __init__(self, seed, flow="nsf"):
        import sbi.inference  # noqa: F401  here, so that no fit is charged for it
        import torch.utils.tensorboard  # noqa: F401

        self.seed, self.flow = seed, flow

    def fit(self, task, theta, X):
        """Learn from pairs."""
        import torch
        from sbi.inference import NPE
        from sbi.neural_nets import posterior_nn
        from torch.utils.tensorboard import SummaryWriter

        torch.manual_seed(self.seed)
        build = posterior_nn(self.flow, embedding_net=_embedding(X, task.summary))
        writer = SummaryWriter(tempfile.mkdtemp())  # by default into the working folder
        options = {"summary_writer": writer, "show_progress_bars": False}
        trainer = NPE(_torch_prior(task.prior), build, **options)
        trainer.append_simulations(_tensor(theta), _tensor(X))
        self.estimator = trainer.train()
        self.posterior = trainer.build_posterior(self.estimator)
        return self

    def sample_posterior(self, X_obs, n_samples, *, random_state=0):
        """Draw (n_obs, n_samples, p)."""
        import torch

        torch.manual_seed(random_state)
        draws = self.posterior.sample_batched(
            (n_samples,), _tensor(X_obs), show_progress_bars=False
        )
        return draws.numpy().swapaxes(0, 1).astype(np.float64)

    def log_prob(self, theta, X):
        """Log density of pairs (n,)."""
        import torch

        with torch.no_grad():
            return self.estimator.log_prob(_tensor(theta)[None], _tensor(X))[0].double().numpy()


class SbiNLE:
    """sbi's NLE of single points with its defaults, posteriors by its default chains."""

    learns = "likelihood"

    def __init__(self, seed, flow="nsf"):
        import sbi.inference  # noqa: F401  here, so that no fit is charged for it
        import torch.utils.tensorboard  # noqa: F401

        self.seed, self.flow = seed, flow

    def fit(self, task, theta, X):
        """Learn from pairs; the posterior's prior is only asked for when it is drawn from."""
        import torch
        from sbi.inference import NLE
        from torch.utils.tensorboard import SummaryWriter

        torch.manual_seed(self.seed)
        writer = SummaryWriter(tempfile.mkdtemp())
        options = {"summary_writer": writer, "show_progress_bars": False}
        self.trainer = NLE(density_estimator=self.flow, **options)
        self.trainer.append_simulations(*map(_tensor, _single_points(theta, X)))
        self.estimator, self.prior = self.trainer.train(), task.prior
        return self

    def sample_posterior(self, X_obs, n_samples, *, random_state=0):
        """Draw (n_obs, n_samples, p)."""
        import torch

        torch.manual_seed(random_state)
        posterior = self.trainer.build_posterior(self.estimator, prior=_torch_prior(self.prior))
        draws = [
            posterior.sample((n_samples,), x=torch.atleast_2d(x), show_progress_bars=False)
            for x in _tensor(X_obs)
        ]
        return torch.stack(draws).numpy().astype(np.float64)

    def log_prob(self, theta, X):
        """Log density of pairs (n,)."""
        import torch

        theta, points = map(_tensor, _single_points(theta, X))
        with torch.no_grad():
            log_q = self.estimator.log_prob(points[None], theta)[0].double().numpy()
        return log_q.reshape(len(X), -1).sum(axis=1)


class SbiNRE:
    """sbi's NRE-C of vectors with its defaults, posteriors by its default chains."""

    learns = "ratio"

    def __init__(self, seed):
        import sbi.inference  # noqa: F401  here, so that no fit is charged for it
        import torch.utils.tensorboard  # noqa: F401

        self.seed = seed

    def fit(self, task, theta, X):
        """Learn from pairs."""
        import torch
        from sbi.inference import NRE_C
        from torch.utils.tensorboard import SummaryWriter

        torch.manual_seed(self.seed)
        writer = SummaryWriter(tempfile.mkdtemp())
        options = {"summary_writer": writer, "show_progress_bars": False}
        trainer = NRE_C(_torch_prior(task.prior), **options)
        trainer.append_simulations(_tensor(theta), _tensor(X))
        self.estimator = trainer.train()
        self.posterior = trainer.build_posterior(self.estimator)
        return self

    def sample_posterior(self, X_obs, n_samples, *, random_state=0):
        """Draw (n_obs, n_samples, p)."""
        import torch

        torch.manual_seed(random_state)
        draws = [
            self.posterior.sample((n_samples,), x=torch.atleast_2d(x), show_progress_bars=False)
            for x in _tensor(X_obs)
        ]
        return torch.stack(draws).numpy().astype(np.float64)

    def log_prob(self, theta, X):
        """Log ratio of pairs (n,)."""
        import torch

        with torch.no_grad():
            return self.estimator(_tensor(theta), _tensor(X)).reshape(-1).double().numpy()


METHODS = {
    "skbi": Skbi,
    "skbi, quick": partial(Skbi, max_iter=10),
    "skbi augmented": partial(Skbi, augment=50),
    "skbi RealNVP": partial(Skbi, flow="realnvp"),
    "skbi FMPE": partial(Skbi, kind=FMPEEstimator),
    "skbi CMPE": partial(Skbi, kind=CMPEEstimator),
    "skbi NLE": SkbiNLE,
    "skbi NRE": SkbiNRE,
    "skbi NRE, balanced": partial(SkbiNRE, balance=100.0),
    "sbi NSF": Sbi,
    "sbi MAF": partial(Sbi, flow="maf"),
    "sbi NLE NSF": SbiNLE,
    "sbi NLE MAF": partial(SbiNLE, flow="maf"),
    "sbi NRE-C": SbiNRE,
}


def _tensor(array):
    import torch

    return torch.as_tensor(np.asarray(array), dtype=torch.float32)


def _single_points(theta, X):
    """Return a pair for every point of each set; vectors are single points already."""
    if X.ndim == 2:
        return theta, X
    return np.repeat(theta, X.shape[1], axis=0), X.reshape(-1, X.shape[2])


def _embedding(X, summary):
    """Return sbi's network for observations of a kind; its series have one channel.

    Its pooling of 160 times is made for long series; here it is a tenth of the series.
    """
    import torch
    from sbi.neural_nets.embedding_nets import (
        CausalCNNEmbedding,
        CNNEmbedding,
        FCEmbedding,
        PermutationInvariantEmbedding,
    )

    if summary == "series":
        return CausalCNNEmbedding(X.shape[1:], pool_kernel_size=max(1, X.shape[1] // 10))
    if summary == "image":
        return CNNEmbedding(X.shape[1:])
    if X.ndim == 2:
        return torch.nn.Identity()
    return PermutationInvariantEmbedding(FCEmbedding(X.shape[2]), trial_net_output_dim=20)


def _torch_prior(prior):
    """Say the same prior in torch's distributions."""
    import torch
    from sbi.utils import MultipleIndependent
    from torch import distributions as d

    if isinstance(prior, GaussianPrior):
        return d.MultivariateNormal(torch.zeros(len(prior.names)), _tensor(prior.covariance))

    def one(marginal):
        args, kwds = marginal.args, marginal.kwds
        kind = {
            "uniform": lambda: d.Uniform(args[0], args[0] + args[1]),
            "norm": lambda: d.Normal(*map(float, args or (0, 1))),
            "gamma": lambda: d.Gamma(args[0], 1.0),
            "lognorm": lambda: d.LogNormal(np.log(kwds["scale"]), args[0]),
            "halfnorm": lambda: d.HalfNormal(kwds["scale"]),
            "expon": lambda: d.Exponential(1 / kwds["scale"]),
        }[marginal.dist.name]()
        return kind.expand(torch.Size([1]))

    found = [one(m) for m in prior.marginals.values()]
    return found[0] if len(found) == 1 else MultipleIndependent(found, validate_args=False)
