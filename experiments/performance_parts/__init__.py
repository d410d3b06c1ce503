"""What performance.py measures: each function makes the rows of one part, in a process of its own."""
