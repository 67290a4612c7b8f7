"""What the documentation shows is what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from everythingfaas.status import moves_table
from tests.live import ROOT, Appliance


def test_the_table_of_states_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    match = re.search(r"<!-- states: begin .*?-->\n(.*?)<!-- states: end -->", text, re.DOTALL)
    assert match is not None
    assert match[1] == moves_table()


def test_the_readmes_sample_prints_what_it_says(appliance: Appliance, tmp_path: Path) -> None:
    samples = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(samples) == 1
    source, output = samples[0]
    script = tmp_path / "sample.py"
    script.write_text(source.replace("http://127.0.0.1:8000", appliance.url))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == output


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
