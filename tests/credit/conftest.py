"""Property tests have no deadline: the first call imports scipy, and machines are shared."""

from hypothesis import settings

settings.register_profile("credit", deadline=None)
settings.load_profile("credit")
