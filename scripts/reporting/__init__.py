"""From records to tables and figures. Nothing here needs torch."""
