"""What the documentation shows is what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from everythingfaas.status import moves_table
from tests.live import ROOT, Appliance


def test_the_table_of_states_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    match = re.search(r"<!-- states: begin .*?-->\n(.*?)<!-- states: end -->", text, re.DOTALL)
    assert match is not None
    assert match[1] == moves_table()


PAGES = ("README.md", "docs/api.md", "docs/client.md", "library/README.md")


def samples(page: str) -> list[tuple[str, str | None]]:
    """Each piece of Python, and what is shown to come of it."""
    found = re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", (ROOT / page).read_text(), re.DOTALL)
    return [(source, output or None) for source, output in found]


@pytest.mark.parametrize("page", PAGES)
def test_the_samples_print_what_they_say(page: str, appliance: Appliance, tmp_path: Path) -> None:
    assert samples(page)
    for number, (source, output) in enumerate(samples(page)):
        script = tmp_path / f"sample{number}.py"
        script.write_text(re.sub(r"http://(127\.0\.0\.1|lab):8000", appliance.url, source))
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert output is None or done.stdout == output


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_hello_says_hello(appliance: Appliance) -> None:
    script = ROOT / "examples" / "hello.py"
    done = subprocess.run(
        [sys.executable, script, appliance.url], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("Hello world, this is Python ")


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
