"""What is asked: loading, checking and generating tasks."""
