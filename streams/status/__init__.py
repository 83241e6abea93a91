"""The pages of a worker: status, dead letters, metrics, health and readiness, on Faust's web server."""
