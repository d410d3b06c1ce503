"""Credit: similarity, matching, turn rewards, advantages. Pure functions on numpy arrays."""
