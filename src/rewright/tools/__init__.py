"""Tools and what executes them."""
