"""``faas up``: the whole appliance on one machine, as a tree of processes that ends as one.

    the user's shell
    └── front          what the user started; passes Ctrl-C on, outlives the supervisor, leaves nothing behind
        └── supervisor starts, restarts and stops the rest; ends it all when the front is gone
            ├── redis, web, dispatcher, worker

`lifecycle` decides (pure: events and the time in, actions out), `supervisor` performs, `guard` is the front,
`plan` says what the processes are. Nothing here imports the processes it starts.
"""
