"""Interaction data: fetch and verify a file, read it, split sequences, pack them into batches."""
