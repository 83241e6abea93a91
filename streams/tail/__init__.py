"""Files into the raw topic, exactly once: found, recognized, framed, published, checkpointed."""
