"""Humanity's Last Exam: questions of experts, without those that have an image."""
