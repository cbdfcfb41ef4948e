"""The documentation is true: its Python runs as it stands, its links lead somewhere, its commands exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from busbw.scripts import COMMANDS, parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_python_blocks_run_in_order(page, tmp_path):
    program = "\n".join(blocks(page, "python"))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_in_shell_blocks_are_accepted(page):
    """Every `busbw ...` line of a shell block parses: its command and its flags exist."""
    for block in blocks(page, "sh"):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for words in _commands(line):
                assert words[0] in COMMANDS or words[0].startswith("-"), line
                if words[0] in COMMANDS:
                    parser().parse_args(words)


def _commands(line: str) -> list[list[str]]:
    """Argument lists of the busbw calls in a line; file names stand for FILE... and $VARIABLES."""
    line = re.sub(r"\s#.*$", "", line)
    found = []
    for part in re.split(r"&&|\|\||[;|]|\s{3,}", line):
        words = shlex.split(re.sub(r"(\w+)\.\.\.", r"\1", part))
        at = next((i for i, w in enumerate(words) if re.search(r"(^|/)busbw$", w)), None)
        if at is not None and at + 1 < len(words) and "pip" not in " ".join(words[:at]) and words[at + 1] != "COMMAND":
            found.append(words[at + 1 :])
    return found
