"""The flow: tail, validate, dispatch, audit, the Avstar client, settings, and the command line."""
