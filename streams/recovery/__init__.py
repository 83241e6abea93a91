"""What people do after trouble: read, redrive and discard dead letters, replay what was sent."""
