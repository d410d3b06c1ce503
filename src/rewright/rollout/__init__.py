"""The one rollout loop, its limits, and what stops a stage whose engine is gone."""
