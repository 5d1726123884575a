"""The digest by which a run of Ansible knows an inventory that was judged just now: any other inventory has another, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lemonstand.deploy import JUDGED, repeat_command
from lemonstand.site.shipped import filter_plugin
from sample_site import sound_site, write_site

SITE = "group_vars/all/site.yml"


def fingerprint(*sources: Path | str) -> str:
    found: str = filter_plugin("judged").fingerprint(sources)
    return found


def _append(folder: Path) -> None:
    (folder / SITE).write_text((folder / SITE).read_text(encoding="utf-8") + "# one line more\n", encoding="utf-8")


def _file(name: str, mode: int = 0o644) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("---\n", encoding="utf-8")
        (folder / name).chmod(mode)

    return make


OTHER: dict[str, Callable[[Path], object]] = {
    "a line": _append,
    "a file": _file("host_vars/store.yml"),
    "a name": lambda folder: (folder / SITE).rename(folder / "group_vars" / "all" / "other.yml"),
    "a directory": lambda folder: (folder / "host_vars" / "stroe").mkdir(parents=True),
    "one file less": lambda folder: (folder / "hosts.yml").unlink(),
}
NONE: dict[str, Callable[[Path], object]] = {
    "a program": _file("more.py", 0o755),
    "a link to a file": lambda folder: (folder / "host_vars").mkdir() or (folder / "host_vars" / "store.yml").symlink_to("/etc/hostname"),
    "a link to a directory": lambda folder: (folder / "host_vars").symlink_to("/etc"),
    "a link to nothing": lambda folder: (folder / "more.yml").symlink_to("/nowhere"),
}


@pytest.mark.parametrize("hosts_file", [False, True])
def test_the_same_files_have_the_same(hosts_file: bool, tmp_path: Path) -> None:
    one = write_site(tmp_path / "one" / "site", sound_site())
    two = write_site(tmp_path / "two" / "site", sound_site())
    found = [fingerprint(folder / "hosts.yml" if hosts_file else folder) for folder in (one, two)]
    assert found[0] == found[1] != ""


@pytest.mark.parametrize("change", OTHER)
def test_other_files_have_another(change: str, tmp_path: Path) -> None:
    folder = write_site(tmp_path, sound_site())
    before = fingerprint(folder)
    OTHER[change](folder)
    assert fingerprint(folder) not in {before, ""}


@pytest.mark.parametrize("change", NONE)
def test_what_files_do_not_say_has_none(change: str, tmp_path: Path) -> None:
    folder = write_site(tmp_path, sound_site())
    NONE[change](folder)
    assert fingerprint(folder) == ""


def test_hosts_of_the_command_line_have_none(tmp_path: Path) -> None:
    folder = write_site(tmp_path, sound_site())
    assert fingerprint("store,") == ""
    assert fingerprint(folder, "store,") == ""
    (folder / SITE).chmod(0o755)
    assert fingerprint(folder) == fingerprint(folder / "hosts.yml") == ""


def test_who_repeats_a_run_has_it_judged_again() -> None:
    shown = repeat_command(Path("hosts.yml"), [Path("site.yml")], env={JUDGED: "0" * 64, "LEMONSTAND_LAB_PREFIX": "10.83"})
    assert "LEMONSTAND_LAB_PREFIX=10.83" in shown
    assert JUDGED not in shown
