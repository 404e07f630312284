"""Make tables and figures from records. No module here imports torch."""
