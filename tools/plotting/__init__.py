"""Figures of runs and of folders of results, one file per figure; the command line is tools/plot.py."""
