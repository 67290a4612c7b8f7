"""The Django app: functions and tasks, the statements that move them, and the REST contract."""
