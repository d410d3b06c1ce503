"""TRL trainer back end: SFT, reward model, RL."""
