"""Property tests draw the same examples on every run."""

from hypothesis import settings

settings.register_profile("skbi", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("skbi")
