"""The product's SQLite backend on a slow disk."""
