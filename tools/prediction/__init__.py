"""Images in, classes out: runs and zero-shot CLIP as classifiers. The command line is tools/predict.py."""
