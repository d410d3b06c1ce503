"""SFT, reward model and RL training. The TRL back end needs the extra `train`."""
