"""The pages in docs/: every command and file that they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_paths_exist(page):
    text = page.read_text()
    named = set(re.findall(r"`(?:python |bash )?((?:tools/bench|tests|recipes|docs|requirements)/[\w./-]*)", text))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_parts_of_the_benches_exist():
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"python (tools/bench/(?:scale|hpo)\.py) (\w+)", text))
    assert len(named) > 4
    for script, part in named:
        parts = re.search(r"^PARTS = \{(.*?)\}", (ROOT / script).read_text(), re.MULTILINE | re.DOTALL)
        assert parts is not None
        assert f'"{part}"' in parts[1], f"{script} has no part {part}"
