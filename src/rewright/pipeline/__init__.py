"""The stages of a run over its run directory."""
