"""Change, on the controller, the CAs that sign for a site, with an overlap in which hosts trust both (docs/decisions/0044).

Reads an order as JSON from standard input: `directory`, `signer` (a command, if the CAs are elsewhere), `step`, `authorities` (empty:
all but `public`), `ca_label`, `ca_days`, `ca_name_constraints`, `check`. Prints a line for each thing that was changed. What was cut
off is done by giving the same order again: `begin` makes the next CAs, `sign` lets them sign, `drop` has the old ones trusted no more,
`end` puts them away. An order that comes too late changes nothing.
"""

import datetime
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from sign_certificates import (
    ROTATION,
    Signer,
    SignError,
    certificate_of,
    load_authority,
    locked,
    make_authority,
    now,
    read_rotation,
    write,
)

CLIENTS = "public"
"""The CA that clients outside trust as well: it is changed if it is named, once they have been given the next one."""
RETIRED = "retired"


def say(directory: Path, rotation: dict[str, Any], step: str) -> None:
    """Write down which step has been reached."""
    write(directory / ROTATION, (json.dumps({**rotation, "step": step}) + "\n").encode("ascii"), 0o600)


def chosen(directory: Path, wanted: list[str]) -> list[str]:
    """Return the CAs to change."""
    there = sorted(folder.parent.name for folder in directory.glob("*/ca.crt"))
    for name in wanted:
        if name not in there:
            raise SignError(f"there is no CA {name} in {directory}; there are: {', '.join(there) or 'none'}")
    names = sorted(set(wanted)) or [name for name in there if name != CLIENTS]
    if not names:
        raise SignError(f"there is no CA in {directory} yet; `lemonstand apply` makes them")
    return names


def begin(directory: Path, rotation: dict[str, Any], order: dict[str, Any]) -> list[str]:
    """Make the CAs that come."""
    wanted = order["authorities"]
    if rotation and wanted and sorted(set(wanted)) != rotation["authorities"]:
        raise SignError(
            f"a change of {', '.join(rotation['authorities'])} is under way since {rotation['begun']}; finish it first: give the command"
            " without names"
        )
    names = rotation.get("authorities") or chosen(directory, wanted)
    for name in names:
        if load_authority(directory / name) is None:
            raise SignError(f"there is no CA {name} in {directory}; restore it from its backup")
    if not rotation and not order["check"]:
        rotation = {"begun": now().isoformat(), "authorities": names}
        say(directory, rotation, "trust")
    made = []
    if rotation.get("step", "trust") == "trust":
        for name in names:
            folder = directory / name
            if (folder / "next" / "ca.crt").exists() or (folder / "old").exists():
                continue
            made.append(f"CA {name}: the next one is made")
            if not order["check"]:
                make_authority(folder / "next", order, name)
    return made


def switch(directory: Path, rotation: dict[str, Any], order: dict[str, Any]) -> list[str]:
    """Let the next CAs sign."""
    if rotation.get("step") != "trust":
        return []
    done = []
    for name in rotation["authorities"]:
        folder, coming = directory / name, directory / name / "next"
        if not coming.exists():
            continue
        done.append(f"CA {name}: the next one signs")
        if order["check"]:
            continue
        # The old one is kept whole before the first of its files is replaced; a change that is cut off between the two goes on from `next`.
        if not (folder / "old" / "ca.crt").exists():
            (folder / "old").mkdir(mode=0o700, exist_ok=True)
            write(folder / "old" / "ca.key", (folder / "ca.key").read_bytes(), 0o600)
            write(folder / "old" / "ca.crt", certificate_of(folder).read_bytes(), 0o644)
        write(folder / "ca.key", (coming / "ca.key").read_bytes(), 0o600)
        write(folder / "ca.crt", (coming / "ca.crt").read_bytes(), 0o644)
        shutil.rmtree(coming)
    if not order["check"]:
        say(directory, rotation, "sign")
    return done


def drop(directory: Path, rotation: dict[str, Any], order: dict[str, Any]) -> list[str]:
    """Have the old CAs trusted no more."""
    if rotation.get("step") != "sign":
        return []
    if not order["check"]:
        say(directory, rotation, "drop")
    return [f"CA {name}: the old one is dropped" for name in rotation["authorities"]]


def end(directory: Path, rotation: dict[str, Any], order: dict[str, Any]) -> list[str]:
    """Put the old CAs where they sign no more."""
    if rotation.get("step") != "drop":
        return []
    done = []
    target = directory / RETIRED / datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    for name in rotation["authorities"]:
        old = directory / name / "old"
        if old.exists():
            done.append(f"CA {name}: the old one is in {target}")
            if not order["check"]:
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
                old.rename(target / name)
    if not order["check"]:
        (directory / ROTATION).unlink()
    return done


STEPS = {"begin": begin, "sign": switch, "drop": drop, "end": end}


def main() -> int:
    """Do one order."""
    os.umask(0o077)
    order = json.load(sys.stdin)
    directory = Path(order["directory"]).expanduser()
    try:
        if not directory.is_dir():
            raise SignError(f"there is no {directory}; `lemonstand apply` makes the CAs")
        if order.get("signer"):
            done = Signer(list(order["signer"]), directory, check=order["check"]).rotate(order["step"], order["authorities"])
        else:
            with locked(directory):
                done = STEPS[order["step"]](directory, read_rotation(directory), order)
    except SignError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    for each in done:
        print(f"changed: {'would change ' if order['check'] else ''}{each}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
