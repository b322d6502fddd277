"""Runs as folders for others: plain files, without paths of this machine. The command line is tools/share.py."""
