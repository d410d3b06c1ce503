"""What learning.py and small_beats_large.py share: one RL run (runs.py), the plan of many (schedule.py), the report."""
