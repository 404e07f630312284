"""Train the run of a config and write its record."""
