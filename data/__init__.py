"""Interaction sequences: fetched, verified, read, split and packed into batches."""
