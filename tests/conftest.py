"""Shared settings: small examples, no surprises from timing on busy machines."""

import matplotlib
from hypothesis import settings

matplotlib.use("Agg")
# The same examples on every run: a test that passed stays passed until the code changes.
settings.register_profile("precode", max_examples=40, deadline=None, derandomize=True)
settings.load_profile("precode")
