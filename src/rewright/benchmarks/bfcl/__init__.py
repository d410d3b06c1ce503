"""BFCL's multi-turn categories."""
