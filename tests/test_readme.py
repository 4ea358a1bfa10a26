"""README and docs/: their commands and examples run, their tables agree with the code.

Every ``bash`` and ``python`` block is followed by a comment: ``<!-- test -->`` runs it in an empty folder,
``<!-- test: recipe -->`` loads it as a recipe, ``needs X`` skips it where X is not installed, ``slow`` leaves it to
``-m slow``, and ``<!-- not run: why -->`` says why not.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from razordeploy import errors
from razordeploy.config.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```\n(?:<!-- (test|not run)(?:: (.*?))? -->)?", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    marker: str | None
    options: str


def _blocks(text: str, page: str = "README.md") -> list[Block]:
    found = BLOCK.finditer(text)
    return [Block(page, text.count("\n", 0, m.start()) + 1, m[1], m[2], m[3], m[4] or "") for m in found]


PAGES = {str(f.relative_to(ROOT)): f.read_text() for f in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
BLOCKS = [block for page, text in PAGES.items() for block in _blocks(text, page)]
TESTED = [
    pytest.param(b, id=f"{b.page}-{b.line}", marks=pytest.mark.slow if "slow" in b.options else ())
    for b in BLOCKS
    if b.marker == "test"
]


def _need(block: Block) -> None:
    for package in re.findall(r"needs (\w+)", block.options):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the example uses {package}, which is not installed")


def _run(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    program = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths}
    words = [*program, block.text]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("block", TESTED)
def test_example(block, tmp_path):
    _need(block)
    if "recipe" in block.options:
        file = tmp_path / "example.py"
        file.write_text(block.text)
        assert load_recipe(file).deploy.backends
    else:
        done = _run(block, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_block_says_whether_it_is_run():
    assert [(block.page, block.line) for block in BLOCKS if block.marker is None] == []
    assert len(BLOCKS) == sum(len(re.findall(r"^```(?:bash|python)$", text, re.MULTILINE)) for text in PAGES.values())
    assert len(TESTED) >= 4


def test_a_block_that_fails_is_seen(tmp_path):
    (bash, python) = _blocks("```bash\nfalse\ntrue\n```\n<!-- test -->\n```python\nraise SystemExit(4)\n```\n")
    assert (bash.marker, python.marker, python.line) == ("test", None, 6)
    assert _run(bash, tmp_path).returncode == 1
    assert _run(python, tmp_path).returncode == 4


def test_readme_opens_with_the_two_commands():
    assert [line.partition("  ")[0] for line in BLOCKS[0].text.splitlines()] == [
        "bash tools/demo.sh",
        "bash tools/test.sh",
    ]
    assert README.index("```bash") < 40


def test_backends_table_is_that_of_the_yaml_files():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \| `razordeploy\[", README, re.MULTILINE))
    specs = [yaml.safe_load(path.read_text()) for path in (ROOT / "backend_configs").glob("*.yaml")]
    assert rows == {spec["name"]: spec["summary"] for spec in specs}


def test_exit_codes_table_is_that_of_the_errors():
    named = {int(code) for code in re.findall(r"^\| (\d{1,2}) \|", README, re.MULTILINE)}
    used = {c.exit_code for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)}
    assert named == used | {0}


# Scripts of mmdeploy and of mmrazor that the pages speak of.
FOREIGN = {"tools/deploy.py", "tools/profiler.py"}


@pytest.mark.parametrize("page", PAGES)
def test_paths_on_a_page_exist(page):
    text = PAGES[page]
    ours = set(re.findall(r"`((?:recipes|tools|backend_configs|requirements)/[\w./]*)", text)) - FOREIGN
    named = {ROOT / path for path in ours}
    named |= {(ROOT / page).parent / path for path in re.findall(r"\]\(((?!https?:)[\w./-]+)(?:#[\w-]*)?\)", text)}
    assert len(named) > 5 or page != "README.md"
    assert [str(path) for path in sorted(named) if not path.exists()] == []
