"""The development corner: embedded Kafka and registry, the Avstar sandbox, the log generator, the demo.

The flow never imports it.
"""
