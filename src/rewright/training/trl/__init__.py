"""The trainer back end that runs on TRL: SFT, reward model, RL."""
