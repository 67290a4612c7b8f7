#!/usr/bin/env python
"""Django's command line: `migrate`, `task_dispatcher`, …"""

import os
import sys

from django.core.management import execute_from_command_line

from everythingfaas.errors import FaasError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faas_project.settings")
    try:
        execute_from_command_line(sys.argv)
    except FaasError as exc:
        sys.exit(f"manage.py: {exc}")


if __name__ == "__main__":
    main()
