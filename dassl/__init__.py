"""A training engine for image classifiers: loops, data, optimisers, evaluation. It knows nothing of CLIP.

Names and config keys are those of Dassl.pytorch 0.6.3, written anew; COMPATIBILITY.md lists what differs.
"""
__version__ = "0.6.3"
