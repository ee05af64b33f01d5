"""How fast are 1,000 draws for each of 2,000 observations? And their calibration? Beside sbi.

Both skbi and sbi learn the two moons problem (two parameters, uniform prior) from the same 5,000
pairs, then work in the same process, in turns. sbi draws in its two ways: all observations in
batches (`sample_batched`), and one at a time (`sample`; 50 observations are timed and scaled). Both
reject draws outside the prior; skbi has none to reject. Calibration is sbi's `run_sbc` against
`coverage_score`, once each.

    pip install -c tests/constraints.txt -e ".[bench]"
    python examples/benchmarks/sampling_rate.py
"""

import resource
import tempfile
import time

import numpy as np
import torch
from sbi.diagnostics import run_sbc
from sbi.inference import NPE
from sbi.utils import BoxUniform
from tasks import two_moons
from torch.utils.tensorboard import SummaryWriter

from skbi import NPEEstimator, coverage_score

N_OBSERVATIONS, N_DRAWS, N_ALONE, N_TURNS = 2000, 1000, 50, 3


def timed(draw):
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    draw()
    return time.perf_counter() - start


def main():
    """Fit both, draw in turns, print rates."""
    task = two_moons()
    theta, X = task.pairs(5000 + N_OBSERVATIONS, seed=0)
    X_obs = X[5000:]
    npe = NPEEstimator(prior=task.prior, random_state=0).fit(theta[:5000], X[:5000])

    torch.manual_seed(0)
    trainer = NPE(
        BoxUniform(-torch.ones(2), torch.ones(2)),
        summary_writer=SummaryWriter(tempfile.mkdtemp()),  # by default into the working folder
        show_progress_bars=False,
    )
    pairs = (torch.as_tensor(a[:5000], dtype=torch.float32) for a in (theta, X))
    trainer.append_simulations(*pairs).train(max_num_epochs=30)
    posterior = trainer.build_posterior()
    x_obs = torch.as_tensor(X_obs, dtype=torch.float32)

    def alone():
        for x in x_obs[:N_ALONE]:
            posterior.sample((N_DRAWS,), x=x, show_progress_bars=False)

    ways = {
        "skbi sample_posterior": lambda: npe.sample_posterior(X_obs, N_DRAWS),
        "sbi sample_batched": lambda: posterior.sample_batched(
            (N_DRAWS,), x=x_obs, show_progress_bars=False
        ),
        "sbi sample": alone,
    }
    npe.sample_posterior(X_obs[:10], N_DRAWS)  # both are warm
    posterior.sample_batched((N_DRAWS,), x=x_obs[:10], show_progress_bars=False)
    seconds = {name: [] for name in ways}
    for _ in range(N_TURNS):
        for name, draw in ways.items():
            seconds[name].append(timed(draw))
    counts = {name: N_ALONE if name == "sbi sample" else N_OBSERVATIONS for name in ways}
    rates = {name: counts[name] * N_DRAWS / np.median(seconds[name]) for name in ways}
    for name, rate in rates.items():
        slower = rates["skbi sample_posterior"] / rate
        print(f"{name:22} {rate:10,.0f} draws/s, {slower:6.1f} times slower than skbi")

    truths = theta[5000:]
    ours = timed(lambda: coverage_score(npe, truths, X_obs, n_samples=N_DRAWS, random_state=0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"skbi coverage_score    {ours:6.1f} s (peak memory of all so far {peak:.2f} GB)")
    options = {"num_posterior_samples": N_DRAWS, "show_progress_bar": False}
    truths = torch.as_tensor(truths, dtype=torch.float32)
    theirs = timed(lambda: run_sbc(truths, x_obs, posterior, **options))
    print(f"sbi run_sbc            {theirs:6.1f} s, {theirs / ours:.0f} times slower")


if __name__ == "__main__":
    main()
