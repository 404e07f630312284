"""Interaction data: fetch and check a file, read it, split sequences, pack batches."""
