"""What `tools/bench.py` measures: a step of ours, the same step as the field takes it, and the floor under both."""
