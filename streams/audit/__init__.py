"""Where every record ended."""
