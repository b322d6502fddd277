"""Is this machine ready? One file per kind of question; the command line is tools/doctor.py."""
