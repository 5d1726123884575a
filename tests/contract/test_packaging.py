"""What is handed out works where it is put: the wheel in an environment of its own, the collection below another path."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(*argv: str | Path, cwd: Path, **env: str) -> str:
    """Runs a program that must succeed, and returns what it printed."""
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **env}
    )
    assert done.returncode == 0, f"{argv}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it would be published."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_all_that_is_shipped(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for part in ("roles", "playbooks", "inventories", "templates"):
        files = [path for path in (ROOT / part).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        missing = {f"lemonstand/_data/{path.relative_to(ROOT)}" for path in files if path.name != ".gitkeep"} - names
        assert not missing
    data = [path for path in (ROOT / "src/lemonstand").rglob("*") if path.suffix in {".yml", ".json", ".lock"}]
    assert {str(path.relative_to(ROOT / "src")) for path in data} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests/", "src/"))]


def test_an_installed_copy_works_by_itself(wheel: Path, tmp_path: Path) -> None:
    own = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", own, cwd=tmp_path)
    (packages,) = own.glob("lib/python*/site-packages")
    # The libraries of this environment, and not its own link to the checkout: a path in a .pth file brings no .pth files with it.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        own / "bin/python",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "-I",
        wheel,
        cwd=tmp_path,
    )
    where = run(own / "bin/python", "-c", "from lemonstand.paths import data_dir; print(data_dir('roles'))", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(own)
    assert "the model holds" in run(own / "bin/lemonstand", "check", "--site", "example", cwd=tmp_path)
    assert "tickets-live-for-hours" in run(own / "bin/lemonstand", "mutate", "--site", "example", "--list", cwd=tmp_path)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as it would be published."""
    folder = tmp_path_factory.mktemp("collection")
    run(BIN / "ansible-galaxy", "collection", "build", "--output-path", folder, cwd=ROOT)
    (path,) = folder.glob("*.tar.gz")
    return path


def test_the_collection_holds_roles_and_nothing_of_the_workshop(collection: Path) -> None:
    with tarfile.open(collection) as archive:
        names = [Path(name) for name in archive.getnames()]
    assert {name.parts[0] for name in names} == {
        "CHANGELOG.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "SECURITY.md", "docs", "meta", "playbooks", "plugins",
        "roles",
    }  # fmt: skip
    assert not [name for name in names if any(part.startswith(".") or part == "__pycache__" for part in name.parts)]


def test_an_installed_collection_gives_its_roles(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")
    env = {
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
        "HOME": str(tmp_path),
    }
    galaxy, player = BIN / "ansible-galaxy", BIN / "ansible-playbook"
    run(galaxy, "collection", "install", "--offline", "-p", tmp_path / "collections", collection, cwd=tmp_path, **env)
    roles = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
    play = {"hosts": "all", "gather_facts": False, "roles": [f"lemonstand.lemonstand.{role}" for role in roles]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    # A play that imports roles reads all their tasks.
    run(player, "-i", "localhost,", "--syntax-check", "play.yml", cwd=tmp_path, **env)
    listed = run(player, "-i", "localhost,", "--list-tasks", "play.yml", cwd=tmp_path, **env)
    assert {f"lemonstand.lemonstand.{role} :" in listed for role in roles} == {True}


def test_an_installed_collection_documents_and_runs_its_modules(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")
    env = {
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
        "HOME": str(tmp_path),
    }
    run(BIN / "ansible-galaxy", "collection", "install", "--offline", "-p", tmp_path / "collections", collection, cwd=tmp_path, **env)
    modules = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
    assert modules == sorted(path.stem for path in (ROOT / "plugins" / "action").glob("*.py"))
    documented = run(BIN / "ansible-doc", "--json", *(f"lemonstand.lemonstand.{name}" for name in modules), cwd=tmp_path, **env)
    for name, said in json.loads(documented).items():
        assert said["doc"]["description"] and said["examples"] and said["return"], name
    owner = pwd.getpwuid(os.getuid()).pw_name
    group = grp.getgrgid(os.getgid()).gr_name
    entry = {"path": str(tmp_path / "file"), "content": "text\n", "owner": owner, "group": group}
    task = {"name": "Write", "lemonstand.lemonstand.files": {"files": [entry]}}
    play = {"hosts": "all", "connection": "local", "gather_facts": False, "tasks": [task]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    assert "changed=1" in run(BIN / "ansible-playbook", "-i", "localhost,", "play.yml", cwd=tmp_path, **env)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "text\n"
    assert "changed=0" in run(BIN / "ansible-playbook", "-i", "localhost,", "play.yml", cwd=tmp_path, **env)


def test_every_program_of_a_role_is_typed() -> None:
    """mypy is told of each by name: a file of no package is found by nobody."""
    told = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["modules"])
    files = [path for path in ROOT.glob("roles/*/files/**/*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.suffix for path in files} == {".py"}, "a program ends in .py here, whatever its name on a host: ruff and mypy go by it"
    assert told == {path.stem for path in files}
