"""The richer API below `/api/v1/`: tasks, functions and workers as they are, and what can be done with them.

queries       what is read, each answer in a fixed number of queries, without payloads and results
serializers   what it looks like: the one source of the answers and of their description
views         GET and PATCH on the pool handler; cancel and retry, which write tasks, on the event loop
"""
