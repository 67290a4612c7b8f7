"""What runs inside a slot, the process that runs users' functions, and the small parent that forks slots.

    supervisor ── subprocess ──▶ zygote ── fork ──▶ slot ── your function
    worker/pool.py               zygote.py          child.py, execute.py

The supervisor never opens a byte that a client or a slot has written; the zygote holds no thread, no
connection and no user code, so forking it is safe and takes some two milliseconds; a slot holds what is
in this package, dill, and what the functions import. Standard library and dill are all it needs.
"""
