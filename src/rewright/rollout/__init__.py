"""Rollouts: the multi-turn loop, its limits, and the check that stops a stage whose engine is down."""
