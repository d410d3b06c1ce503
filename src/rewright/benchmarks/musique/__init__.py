"""MuSiQue: multi-hop questions composed of single ones."""
