"""Property tests draw the same examples on every run; SKBI_EXAMPLES=500 draws that many, anew.

Tests run side by side, a process for each core (``pytest -n 0``: one after another).
"""

import os

import torch
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)

n_examples = os.environ.get("SKBI_EXAMPLES")
settings.register_profile(
    "skbi",
    derandomize=n_examples is None,
    database=None,
    deadline=None,
    max_examples=int(n_examples or 20),
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("skbi")
