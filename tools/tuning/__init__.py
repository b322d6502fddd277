"""What tools/tune.py uses: a search space, a study on disk, its trials as runs of a sweep, and what they found."""
