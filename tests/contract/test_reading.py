"""Documents lead somewhere: every relative link has a file, every command of ours that a reader is told to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from lemonstand.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/decisions/*.md", "docs/roles/*.md", "docs/upstream/*.md", "roles/*/README.md")
    for path in ROOT.glob(pattern)
)
READERS = [path for path in DOCUMENTS if path.parent in {ROOT, ROOT / "docs"} and path.name != "CHANGELOG.md"]
LONGEST_README = 120


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    dead = [
        link for link in links if "://" not in link and not link.startswith("#") and not (path.parent / link.partition("#")[0]).exists()
    ]
    assert dead == []


@pytest.mark.parametrize("path", READERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_command_that_is_named_exists(path: Path) -> None:
    """In code blocks and code spans: `lemonstand WORD WORD …`; options are looked up at the command they follow."""
    text = path.read_text(encoding="utf-8")
    spans = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^ {4}(.+)$", text, flags=re.MULTILINE)
    unknown = []
    for span in spans:
        for line in re.findall(r'(?:^|[\s;&/(])lemonstand ([a-z<-][^|;&#")]*)', span):
            fault = _fault(line.split())
            if fault:
                unknown.append(f"lemonstand {line}: {fault}")
    assert unknown == []


def test_the_readme_is_read_in_one_go() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def _fault(words: list[str]) -> str:
    """What is wrong with a command line of documents; words in capitals stand for something."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        choices = words[0].split("|") if "|" in words[0] else [words[0]]
        missing = [each for each in choices if each not in command.commands]
        if missing:
            return "" if words[0].isupper() else f"there is no command {missing[0]}"
        command, words = command.commands[choices[0]], words[1:]
    if command.context_settings.get("ignore_unknown_options"):
        return ""  # what follows is somebody else's command
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help", "--version"}
    options = [word.strip("[]().,:").partition("=")[0] for word in words]
    unknown = [option for option in options if re.fullmatch(r"--?[A-Za-z][a-z-]*", option) and option not in known]
    return f"it has no option {unknown[0]}" if unknown else ""
