"""Worker processes with resource limits that run functions of a given module."""
