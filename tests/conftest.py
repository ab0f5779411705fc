"""Shared settings: small examples, no surprises from timing on busy machines."""

import matplotlib
from hypothesis import settings

matplotlib.use("Agg")
settings.register_profile("precode", max_examples=40, deadline=None)
settings.load_profile("precode")
