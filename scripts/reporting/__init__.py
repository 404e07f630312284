"""From records to tables and figures. No module here imports torch."""
