"""What the two halves share: a record of a run, and how files are written and read."""
