"""A deliberate change to one host of a lab, and the way back: what mutants and the red team's breaks have in common."""

from __future__ import annotations

import shlex

from pydantic import BaseModel, ConfigDict, Field

from lemonstand import lab as labs

SAVED = "/run/lemonstand-tampered.tar"
"""Where a host keeps the files that were changed until they are put back. Its presence tells that a run died."""
PACK = "tar --format=posix -cPf"
"""tar's own format has whole seconds alone, and a file of another time counts as written anew: services would be restarted for it."""


class Tampering(BaseModel):
    """A change to a host.

    Args:
        name: unique, kebab-case.
        host: the lab's host it is made on.
        files: what it changes there; saved before, put back after. One that isn't there is taken away again.
        change: shell commands that change them, or the running host.
        apply: shell commands that bring the host to its files, used for the change and for the way back.
        mend: shell commands that undo what is not in files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    host: str
    files: tuple[str, ...] = ()
    change: str = Field(min_length=1)
    apply: str = ""
    mend: str = ""


def was_left(lab: str, host: str) -> bool:
    """Tells whether a change was left on a host by a run that died.

    Raises:
        LemonstandError: the host can't be asked.
    """
    return bool(labs.run_on(lab, host, f"test ! -e {SAVED} || echo yes\n").strip())


def put_back(lab: str, host: str) -> None:
    """Puts back the files of a run that died; what runs on the host is left as it is, for an apply to see to.

    Raises:
        LemonstandError: it could not.
    """
    labs.run_on(lab, host, f"tar -xPf {SAVED} && rm -f {SAVED}\n")


def tamper(lab: str, made: Tampering, before: str = "") -> None:
    """Saves a host's files and changes the host.

    Args:
        before: shell commands that run between the two.

    Raises:
        LemonstandError: the host can't be reached, or the commands failed; it is to be mended all the same.
    """
    # Only what is there is packed; the directories stay as they are.
    packed = f"ls -d {shlex.join(made.files)} 2>/dev/null | {PACK} {SAVED} -T -" if made.files else f"{PACK} {SAVED} -T /dev/null"
    labs.run_on(lab, made.host, f"set -e\numask 077\n{packed}\n")
    labs.run_on(lab, made.host, f"set -e\n{before}{made.change}\n{made.apply}\n")


def mend(lab: str, made: Tampering) -> None:
    """Puts a host's files back and brings the host to them.

    Raises:
        LemonstandError: it could not.
    """
    # A file that was not there is not in the archive: it goes.
    gone = f"rm -f {shlex.join(made.files)}\n" if made.files else ""
    labs.run_on(lab, made.host, f"set -e\n{made.mend}\n{gone}tar -xPf {SAVED}\n{made.apply}\nrm -f {SAVED}\n")
