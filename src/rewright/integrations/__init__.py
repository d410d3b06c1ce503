"""Plug-ins that add turn credit to other trainers: TRL, verl, SkyRL, slime, verifiers."""
