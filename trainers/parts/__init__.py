"""Learnable bricks that touch only frozen CLIP: they take plain arguments, never a config, and work in a notebook."""
