"""What `faas up` starts: the processes of the appliance, from the settings."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import replace

from appliance.folder import DataFolder
from appliance.lifecycle import ProcessSpec, Role
from appliance.valkey import choose_socket, say_goodbye, server_command
from everythingfaas.settings import Settings, as_environment, dispatcher_address, variable

# -P keeps the folder that the user stands in off our own processes' path: a file of theirs called worker.py or
# api/ is meant for their functions, and must not be what we import.
_PYTHON = (sys.executable, "-P")
#: The command line, wherever it is installed.
_FAAS = "from everythingfaas.cli import main; main()"
#: In the folder of keys: the key of the worker that is started beside the dispatcher.
OWN_KEY = "local.key"
#: Settings that a worker process is told.
_OF_WORKERS = ("data_dir", "log_level", "max_result_bytes")


def build_plan(settings: Settings, folder: DataFolder, then: str | None) -> list[ProcessSpec]:
    """The processes in the order of their start.

    They stop in another: the web first, which finishes its requests; then the workers, which give back what has
    not begun and deliver the rest; then the dispatcher, to which they delivered it; and Redis when nobody speaks
    to it any more.
    """
    environ = os.environ | as_environment(settings) | {"DJANGO_SETTINGS_MODULE": "faas_project.settings"}
    redis = []
    if not settings.redis_url:
        redis = [_redis(folder)]
        environ["FAAS_REDIS_URL"] = settings.redis_address
    first = [_first_administrator(environ)] if settings.tokens else []
    plan = [*redis, _migrate(environ), *first, _web(environ), _dispatcher(settings, environ)]
    if settings.mode != "local":
        if not settings.dispatcher_is_private:
            plan.insert(len(redis), _worker_key(settings, environ))
        plan.append(_worker(settings, environ))
    plan.append(_probe(settings, environ))
    if then is not None:
        plan.append(_then(settings, environ, then))
    return _with_their_share(plan, settings.shutdown_s)


def _with_their_share(plan: list[ProcessSpec], shutdown_s: float) -> list[ProcessSpec]:
    """Tell each process how long it has to stop itself, which is its share of the whole."""
    total = sum(spec.stop_share for spec in plan if spec.role is Role.SERVICE)
    return [
        replace(spec, environ={**spec.environ, "FAAS_SHUTDOWN_S": f"{shutdown_s * spec.stop_share / total:.2f}"})
        for spec in plan
    ]


def _redis(folder: DataFolder) -> ProcessSpec:
    socket_path = choose_socket(folder)
    return ProcessSpec(
        "redis",
        server_command(folder, socket_path),
        {"FAAS_DATA_DIR": str(folder.path), "PATH": os.defpath},  # and no secrets
        stop_rank=3,
        stop_share=0.5,
        farewell=functools.partial(say_goodbye, socket_path),
    )


def _migrate(environ: Mapping[str, str]) -> ProcessSpec:
    command = (*_PYTHON, "-m", "django", "migrate", "--noinput", "-v", "0")
    return ProcessSpec("migrate", command, environ, Role.STEP)


def _first_administrator(environ: Mapping[str, str]) -> ProcessSpec:
    """Shows once what the first administrator comes in by, and never writes it into a log."""
    command = (*_PYTHON, "-c", _FAAS, "token", "first")
    return ProcessSpec("first-administrator", command, environ, Role.STEP, speaks=True)


def _web(environ: Mapping[str, str]) -> ProcessSpec:
    return ProcessSpec("web", (*_PYTHON, "-m", "faas_project.serve"), environ, stop_share=3)


def _dispatcher(settings: Settings, environ: Mapping[str, str]) -> ProcessSpec:
    command = [*_PYTHON, "-m", "django", "task_dispatcher", "-m", settings.mode]
    if settings.mode == "local":
        command += ["-w", str(settings.workers)]
    else:
        command += ["-p", str(settings.dispatcher_port)]
    if settings.task_deadline is not None:
        command += ["--task-deadline", str(settings.task_deadline)]
    return ProcessSpec("dispatcher", tuple(command), environ, stop_rank=2, stop_share=3)


def _worker_key(settings: Settings, environ: Mapping[str, str]) -> ProcessSpec:
    key = settings.keys_folder / OWN_KEY
    command = (*_PYTHON, "-c", _FAAS, "worker-key", "create", "local", "--file", str(key), "--if-missing")
    return ProcessSpec("worker-key", command, environ, Role.STEP)


def _worker(settings: Settings, environ: Mapping[str, str]) -> ProcessSpec:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.dispatcher_bind, settings.dispatcher_bind)  # noqa: S104
    address = dispatcher_address(host, settings.dispatcher_port)
    command = (*_PYTHON, "-m", "worker", settings.mode, str(settings.workers), address)
    # It runs functions, and needs neither the database nor Redis: so it has not got the way to them.
    needed = {variable(name) for name in _OF_WORKERS}
    ours = {name: value for name, value in environ.items() if not name.startswith("FAAS_") or name in needed}
    if not settings.dispatcher_is_private:
        ours["FAAS_WORKER_KEY"] = str(settings.keys_folder / OWN_KEY)
    return ProcessSpec("worker", command, ours, stop_rank=1, stop_share=3)


def _probe(settings: Settings, environ: Mapping[str, str]) -> ProcessSpec:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.listen, settings.listen)  # noqa: S104 -- the reverse
    where = (host, str(settings.port), settings.address)
    return ProcessSpec("readiness", (*_PYTHON, "-m", "appliance.await_ready", *where), environ, Role.PROBE)


def _then(settings: Settings, environ: Mapping[str, str], path: str) -> ProcessSpec:
    command = (sys.executable, path, settings.url)
    return ProcessSpec(os.path.basename(path), command, {**environ, "FAAS_URL": settings.url}, Role.AFTERWARDS)
