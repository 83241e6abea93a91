"""The log: the topic catalogue, provisioning, keys, transactions, the chunk transport, subscribing."""
