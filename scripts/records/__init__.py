"""Code that running and reporting share: records, status files, atomic writes, signals."""
