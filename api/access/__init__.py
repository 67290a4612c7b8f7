"""Who may do what: users, their tokens and sessions, quotas, and the record of what they did.

    credential ──▶ Gate (the event loop) ──▶ Caller ──▶ views, queries, the live pages
    header, cookie     kept for two seconds     whose objects it sees, what it may do

    caller     who calls, and what a view needs of them
    models     tokens, tickets, quotas, the audit log
    tokens     making, finding and revoking them: for threads that may wait
    gate       the check before every view and socket, in a web process with tokens on
    rest       the same, said to Django REST framework
    quotas     429
    audit      who did what, from where: on the event loop; records: the same for threads
    signals    what follows a change of users, tokens and quotas
    pages      the page to log in by
    commands   `faas token`, `faas quota`

With tokens off there is no gate and everybody is the user `local`: nothing here is on the way of a request then.
"""
