"""What people run: train, aggregate, make_tables."""
