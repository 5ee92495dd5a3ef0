"""Tasks: how data becomes a problem that every architecture can be tried on."""
