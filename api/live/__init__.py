"""What pages show, live: see `api.live.hub`."""
