pytest_plugins = ["tests.live", "tests.redis_fixture", "tests.web", "tests.access"]
