"""Property tests draw the same examples on every run; SKBI_EXAMPLES=500 draws that many, anew.

Tests run side by side, a process for each core (``pytest -n 0``: one after another).
"""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before numpy and torch start threads that would compete
    os.environ["OMP_NUM_THREADS"] = "1"

from hypothesis import HealthCheck, settings

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
