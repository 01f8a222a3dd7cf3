"""What comes out: reports as JSON, tables and figures."""
