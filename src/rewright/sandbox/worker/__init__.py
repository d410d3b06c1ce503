"""Code of the worker processes: the fork server and its children, which execute tools. Standard library only.

The fork server loads this folder as a separate package (`rewright_worker`), so that a worker process imports neither
Rewright nor asyncio nor torch: a small process forks fast. Modules here import each other relatively.
"""
