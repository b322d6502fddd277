"""A Dassl engine for today's PyTorch: registries, data, loops, optimisers, checkpoints. It knows nothing of CLIP."""
__version__ = "0.6.3"
