"""How a model writes calls, results and answers."""
