"""SFT, reward model and RL on TRL (needs the extra `train`)."""
