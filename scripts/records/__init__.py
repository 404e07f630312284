"""What running and reporting share: the record of a run, and how files are written and read."""
