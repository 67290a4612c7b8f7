"""Batches: many tasks in one request and one transaction, and their results as one stream.

    intake       what a client has sent ──▶ tasks, or the one that is wrong
    writer       one thread that commits them, a batch whole or not at all
    feed         who has ended, in the order in which this process hears of it; cursors
    results      what they ended with, a page at a time
    views        the calls below `/api/v1/batches`; `consumer`: the same results over a WebSocket
    statements   the SQL

A batch may grow: what an executor of the client library submits is one batch, by and by.
"""
