"""The shape of things: records, profiles, Avro schemas, hashes, envelopes. No I/O but the registry."""
