"""Command-line programs of the checkout; they may import everything and nothing outside imports them."""
