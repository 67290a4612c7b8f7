"""Django's PostgreSQL backend on a slow disk."""
