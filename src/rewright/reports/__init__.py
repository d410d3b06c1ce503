"""Reports of a run: tables, figures, and the credit of its trajectories."""
