"""A Dassl engine for today's PyTorch: registries, data, loops, optimisers, checkpoints. It knows nothing of CLIP."""
__version__ = "0.1.0"           # of this project, wherever it is asked for
DASSL_COMPAT = "0.6.3"          # the release of Dassl.pytorch whose code runs here
