"""Tables of finished runs: their rows (rows, found), the tables of the papers (layouts), how these are written."""
