"""What breaks a classifier: attacks, corruptions, covered and exchanged patches of its images."""
