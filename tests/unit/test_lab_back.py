"""`lab up` brings back what stands still and takes nothing down; a snapshot that was killed is undone by the next command."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import shipped_lab
from lemonstand import lab as labs
from lemonstand import paths
from lemonstand.errors import InputError, InputErrors, LemonstandError
from lemonstand.lab import containers, images, inspection, lifecycle, machine, network, replacing, seeds, snapshots
from lemonstand.lab.state import lock
from lemonstand.lab.topology import Topology, from_plain

NAMES = list(shipped_lab.hosts())


class Podman:
    """Stands for podman: containers by name with their state; keeps what was asked of it."""

    def __init__(self, state: dict[str, str]) -> None:
        self.state = {f"ls-sample-{name}": kind for name, kind in state.items()}
        self.asked: list[list[str]] = []

    def __call__(self, argv: list[Any], *, check: bool = True, **_: Any) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in argv]
        self.asked.append(words)
        code, said = self._answer(words[1:]) if words[0] == "podman" else (0, "")
        if check and code:
            raise LemonstandError("no such container", " ".join(words), "look")
        return subprocess.CompletedProcess(words, code, said, "")

    def _answer(self, words: list[str]) -> tuple[int, str]:
        verb, name = words[0], words[-1]
        if verb == "ps":
            return 0, "\n".join(self.state)
        if verb == "exec":
            container = next(word for word in words if word.startswith("ls-sample-"))
            return (0, "running\n") if self.state.get(container) == "running" else (125, "")
        if verb == "start":
            if self.state.get(name) in {None, "broken"}:
                return 125, ""
            self.state[name] = "running"
        if verb == "stop":
            for each in words[3:]:
                if self.state.get(each) in {"running", "stale", "paused"}:
                    self.state[each] = "exited"
        if verb == "unpause" and self.state.get(name) == "paused":
            self.state[name] = "running"
        if verb == "rm":
            self.state.clear()
        return 0, ""

    def verbs(self) -> set[str]:
        """What it was asked to do."""
        return {words[1] for words in self.asked if words[0] == "podman"}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A lab whose driver touches nothing; `podman` and `wires` may be set before."""
    found: dict[str, Any] = {"wires": True, "built": 0, "new": []}

    def start(_topology: Topology, host: str, *_: Any) -> str:
        found["new"].append(host)
        found["podman"].state[f"ls-sample-{host}"] = "running"
        return host

    def build(_topology: Topology) -> None:
        found["built"] += 1
        found["wires"] = True

    monkeypatch.setattr(lifecycle, "start_host", start)
    monkeypatch.setattr(lifecycle, "seed_lab", lambda *_: None)
    monkeypatch.setattr(lifecycle, "_planned", lambda *_: planned(found.get("inventory", shipped_lab.topology())))
    for name in ("add", "carry"):
        monkeypatch.setattr(network, name, lambda *_: None)
    monkeypatch.setattr(images, "content_key", lambda: "key")
    monkeypatch.setattr(images, "prepare", lambda *_: type("Base", (), {"drift": ()})())
    for name in ("check", "check_space", "check_tools", "raise_settings"):
        monkeypatch.setattr(machine, name, lambda *_, **__: None)
    monkeypatch.setattr(network, "exists", lambda _: found["wires"])
    monkeypatch.setattr(network, "build", build)
    monkeypatch.setattr(network, "remove", lambda _: found.update(wires=False))
    return found


def made_of(topology: Topology) -> Topology:
    """The hosts of one lab as those of the lab of these tests."""
    return from_plain("sample", "10.9", topology.plain())


def planned(topology: Topology) -> lifecycle.Plan:
    return lifecycle.Plan(made_of(topology), "inventories/lab", "inventories/lab", {})


def _state() -> dict[str, Any]:
    return {**planned(shipped_lab.topology()).state("key"), "up": True}


def _lab(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch, state: dict[str, str], **noted: Any) -> Podman:
    podman = Podman(state)
    made["podman"] = podman
    for module in (containers, inspection, lifecycle, snapshots):
        monkeypatch.setattr(module, "run", podman)
    folder = paths.lab_dir("sample")
    (folder / "lab.json").write_text(json.dumps({**_state(), **noted}), encoding="ascii")
    (folder / "snapshots" / "clean").mkdir(parents=True)
    return podman


def _all(kind: str = "running", **others: str) -> dict[str, str]:
    return {**dict.fromkeys(NAMES, kind), **others}


STANDS = {
    "all run": (_all(), True, 0),
    "one was stopped": (_all(store="exited"), True, 0),
    "several were stopped": (_all(store="exited", auth="exited", edge="exited"), True, 0),
    "one is frozen": (_all(relay="paused"), True, 0),
    "the machine was started again": (_all("stale"), False, 1),
    "the machine was started again, podman knows": (_all("exited"), False, 1),
    "wires of one are gone": (_all(), False, 1),
}


@pytest.mark.parametrize("kind", STANDS)
def test_what_stands_still_is_started_again(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    state, made["wires"], built = STANDS[kind]
    podman = _lab(made, monkeypatch, state)
    if kind == "wires of one are gone":
        podman.state["ls-sample-edge"] = "exited"
    labs.up("sample", progress=lambda _: None)
    assert set(podman.state.values()) == {"running"}
    assert len(podman.state) == len(NAMES)
    assert "rm" not in podman.verbs(), "nothing that holds data is removed"
    assert (made["built"], made["new"]) == (built, [])
    assert (paths.lab_dir("sample") / "snapshots" / "clean").is_dir()


def test_a_host_that_is_gone_is_made_anew_and_said(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    state = _all()
    del state["store"]
    podman = _lab(made, monkeypatch, state)
    said: list[str] = []
    labs.up("sample", progress=said.append)
    assert made["new"] == ["store"]
    assert "rm" not in podman.verbs()
    assert any("store" in line and "anew" in line for line in said)


REFUSED = {
    "another prefix": (_all(), {}, {"prefix": "10.10"}),
    "a host that does not start": (_all(store="broken"), {}, {}),
}


def test_a_host_that_is_new_in_the_inventory_is_added(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    podman = _lab(made, monkeypatch, _all())
    known = shipped_lab.topology()
    made["inventory"] = replace(known, machines=(*known.machines, replace(known.machine("store"), name="store2")))
    said: list[str] = []
    labs.up("sample", progress=said.append)
    assert made["new"] == ["store2"]
    assert "rm" not in podman.verbs()
    assert any("store2" in line and "new" in line for line in said)
    assert "store2" in {machine.name for machine in labs.topology_of("sample").machines}


def _without_store(known: Topology) -> Topology:
    return replace(known, machines=tuple(item for item in known.machines if item.name != "store"))


def _store_elsewhere(known: Topology) -> Topology:
    return replace(known, machines=tuple(replace(item, legs=item.legs[:1]) if item.name == "store" else item for item in known.machines))


ELSEWHERE = {"is in its inventory no more": _without_store, "stands elsewhere": _store_elsewhere}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_an_inventory_that_no_longer_names_the_lab_s_hosts_is_refused(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    podman = _lab(made, monkeypatch, _all())
    known = shipped_lab.topology()
    made["inventory"] = ELSEWHERE[kind](known)
    with pytest.raises(InputErrors, match="host store of the lab 'sample'") as caught:
        labs.up("sample", progress=lambda _: None)
    assert kind in caught.value.what
    assert "--fresh" in caught.value.remedy
    assert "rm" not in podman.verbs()
    assert labs.topology_of("sample") == made_of(known)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_t_be_brought_back_is_refused_with_the_choice(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    state, noted, options = REFUSED[kind]
    podman = _lab(made, monkeypatch, state, **noted)
    with pytest.raises(InputError) as caught:
        labs.up("sample", progress=lambda _: None, **options)
    assert "--fresh" in caught.value.remedy
    assert "rm" not in podman.verbs()
    labs.up("sample", progress=lambda _: None, fresh=True, **options)
    assert "rm" in podman.verbs()
    assert sorted(made["new"]) == sorted(NAMES)


def test_an_older_base_image_is_no_reason_to_lose_mail(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    podman = _lab(made, monkeypatch, _all(), key="of last week")
    monkeypatch.setattr(images, "supply", lambda key, _: key == "of last week")
    said: list[str] = []
    labs.up("sample", progress=said.append)
    assert "rm" not in podman.verbs()
    assert sum(words[-2:] == ["-q", "update"] for words in podman.asked) == len(NAMES), "hosts read the list of packages again"
    assert any("--fresh" in line for line in said)


def test_hosts_of_an_older_image_find_the_packages_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(images, "index", lambda folder: " ".join(sorted(path.name for path in folder.glob("*.deb"))))
    old, new = (tmp_path / "base" / key / "packages" for key in ("old", "new"))
    for folder, names in ((old, ("a_1.deb", "gone_1.deb")), (new, ("a_1.deb", "b_1.deb"))):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text(folder.parent.name)
    base = images.Base("image", new, [], False)
    assert images.supply("old", base)
    assert (old / "Packages").read_text() == "a_1.deb b_1.deb gone_1.deb"
    assert ((old / "a_1.deb").read_text(), (old / "b_1.deb").read_text()) == ("old", "new")
    assert not images.supply("old", base), "nothing is left to add"
    assert not images.supply("never made", base)


def test_a_lab_that_never_came_up_is_made_anew(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    podman = _lab(made, monkeypatch, _all(), up=False)
    labs.up("sample", progress=lambda _: None)
    assert "rm" in podman.verbs()
    assert sorted(made["new"]) == sorted(NAMES)


def _left(place: Path, *names: str) -> None:
    for name in names:
        if "." in name[1:]:
            (place / name).mkdir()
            (place / name / "snapshot.json").touch()
        else:
            (place / name).touch()


KILLED = {
    "while it was frozen": ((".freezing", ".x.new"), {"clean"}),
    "while it was copied": ((".x.new",), {"clean"}),
    "between two names": ((".x.old", ".x.new"), {"clean", "x"}),
    "before the old one was gone": ((".clean.old",), {"clean"}),
}


@pytest.mark.parametrize("kind", KILLED)
def test_a_killed_snapshot_is_undone(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    left, kept = KILLED[kind]
    podman = _lab(made, monkeypatch, _all("paused" if ".freezing" in left else "running"))
    place = paths.lab_dir("sample") / "snapshots"
    _left(place, *left)
    labs.heal("sample")
    assert set(podman.state.values()) == {"running"}
    assert {path.name for path in place.iterdir()} == kept
    assert not snapshots.marked(paths.lab_dir("sample"))


def test_a_snapshot_at_work_is_left_alone(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    podman = _lab(made, monkeypatch, _all("paused"))
    place = paths.lab_dir("sample") / "snapshots"
    _left(place, ".freezing", ".x.new")
    with lock("sample"):
        labs.heal("sample")
    assert set(podman.state.values()) == {"paused"}
    assert (place / ".x.new").is_dir()


def test_half_a_restore_is_refused_until_it_is_finished(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _lab(made, monkeypatch, _all("exited"))
    place = paths.lab_dir("sample") / "snapshots"
    (place / ".restoring").write_text("clean", encoding="ascii")
    for each in (labs.heal, labs.up, labs.status):
        with pytest.raises(InputError, match="cut off") as caught:
            each("sample")
        assert "lab restore --name sample clean" in caught.value.remedy
    assert (place / ".restoring").exists()


def test_a_lab_of_before_labs_followed_inventories_is_known_again(tmp_path: Path) -> None:
    """It has no list of hosts: they were the shipped lab's."""
    folder = paths.lab_dir("sample")
    shipped_lab.site(folder)
    (folder / "lab.json").write_text(json.dumps({"prefix": "10.99", "key": "key", "up": True}), encoding="ascii")
    assert labs.topology_of("sample") == shipped_lab.topology()
    assert "topology" in json.loads((folder / "lab.json").read_text(encoding="ascii"))


def test_a_host_is_replaced_alone_and_ssh_is_not_told(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes in its place has another key, and the lab's file of known hosts stays as it is."""
    podman = _lab(made, monkeypatch, _all())
    folder = paths.lab_dir("sample")
    for part in ("logs", "ssh", "hosts/store"):
        (folder / part).mkdir(parents=True)
    (folder / "ssh" / "known_hosts").write_text("store ssh-ed25519 OLD\n", encoding="ascii")
    fingerprint = seeds.fresh_host_key(folder / "hosts" / "store", "store")
    removed: list[str] = []

    def remove(argv: list[Any], **_: Any) -> subprocess.CompletedProcess[str]:
        removed.append(str(argv[-1]))
        del podman.state[str(argv[-1])]
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(replacing, "run", remove)
    monkeypatch.setattr(replacing, "start_host", lifecycle.start_host)
    for name in ("cut", "forget_neighbours", "end_processes"):
        monkeypatch.setattr(network, name, lambda *_: None)
    assert labs.replace("sample", "store", lambda _: None) not in {"", fingerprint}
    assert removed == ["ls-sample-store"] and made["new"] == ["store"]
    assert (folder / "ssh" / "known_hosts").read_text(encoding="ascii") == "store ssh-ed25519 OLD\n"
    with pytest.raises(InputError, match="no host 'nobody'"):
        labs.replace("sample", "nobody", lambda _: None)
