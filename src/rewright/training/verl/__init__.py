"""verl as a trainer back end: `verl.trainer.main_ppo` on Ray, in an interpreter that may be another one.

No module of this package imports verl or Ray, so it works in an environment that has neither.
"""
