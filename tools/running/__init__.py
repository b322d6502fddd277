"""What tools/train.py is made of: its flags and config, restarts, other people's code, how it ends."""
