"""Django's SQLite backend, for several processes that write a lot: see `faas_project.sqlite.base`."""
