"""Runs as ONNX files; the command line is tools/export.py."""
