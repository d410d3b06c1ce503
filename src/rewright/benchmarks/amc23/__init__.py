"""AMC 2023: competition mathematics."""
