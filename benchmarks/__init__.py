"""How fast and how large, beside others: `make bench`. Nothing here is needed to train."""
