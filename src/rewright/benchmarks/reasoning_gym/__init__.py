"""reasoning-gym's procedural sets."""
