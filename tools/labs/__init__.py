"""Extras that no table of a paper needs. Nothing imports them but the commands that they are: bench, pretrain_tiny,
describe, export, share, and predict --serve.
"""
