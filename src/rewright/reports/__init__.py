"""Pictures and the page that shows a run."""
