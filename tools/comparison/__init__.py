"""Runs side by side: reading them (sides), what differs (differ), saying it (report)."""
