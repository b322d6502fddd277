"""The embedded CLIP from rendered images and captions; the command line is tools/pretrain_tiny.py."""
