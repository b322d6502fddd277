"""One file per method; what they share is in `parts/`. Importing a file registers its trainer."""
