"""Raw records into validated records, batches and dead letters, a window at a time."""
