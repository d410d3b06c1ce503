"""Trajectories from elsewhere: logs of other projects, read or refused."""
