"""SFT and preference sets, and their exports."""
