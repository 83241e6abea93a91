"""What files of each format look like: framing into records, records into rows. Pure."""
