"""What tools/sweep.py is made of: cells, their order and places, processes, the overview, jobs of a cluster."""
