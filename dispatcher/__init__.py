"""The dispatcher: claims tasks from the database, gives them to workers, and writes down how they ended."""
