"""What runs outside the trainer: the fork server and the children that execute tools. Standard library only.

The fork server loads this folder as a package of its own (`rewright_worker`), so that a worker process imports nothing
of Rewright, of asyncio or of torch: a small process forks fast. Modules here import each other relatively.
"""
