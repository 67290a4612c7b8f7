"""The worker: a supervisor that talks to a dispatcher, and one process for each slot. No Django."""
