"""Benchmarks of speed, memory, quality on other tasks, exchanges and faults."""
