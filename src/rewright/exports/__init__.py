"""Export SFT and preference sets to the formats of other trainers."""
