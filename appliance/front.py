"""What `faas up` becomes once its options are read: ``python -m appliance.front [FILE]``.

A program of its own, because it stays as long as the appliance does and should hold little: the command line
library alone is larger than all of this. The settings are in the environment.
"""

from __future__ import annotations

import os
import sys

from appliance.console import tell
from appliance.folder import DataFolder
from appliance.guard import Appliance, run_guarded
from appliance.plan import build_plan
from appliance.ports import check_ports
from everythingfaas.errors import FaasError
from everythingfaas.settings import Settings, is_loopback


def main(arguments: list[str]) -> int:
    try:
        settings = Settings.from_env(os.environ)
        folder = DataFolder(settings.data_dir)
        return run_guarded(folder, lambda: _prepare(settings, folder, arguments[0] if arguments else None))
    except FaasError as error:
        tell(f"faas: {error}")
        return 1


def _prepare(settings: Settings, folder: DataFolder, then: str | None) -> Appliance:
    check_ports(settings)
    plan = build_plan(settings, folder, then)
    if not is_loopback(settings.listen) and not settings.tokens:
        tell(
            f"faas: warning: listens on {settings.listen} without tokens; whoever reaches that address can run "
            "code here"
        )
    tell(f"faas: starting in {settings.mode} mode, up to {settings.workers} functions at a time")
    tell(f"faas: data in {folder.path}, logs in {folder.log}")
    return Appliance(plan, f"ready {settings.url}", settings.shutdown_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
