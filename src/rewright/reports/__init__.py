"""Reports of a run: tables, figures and the HTML page."""
