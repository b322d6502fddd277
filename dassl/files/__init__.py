"""Files on disk: written whole or not at all. Imports nothing heavy."""
