"""A deliberate change to one host of a lab, and the way back: what mutants and the red team's breaks have in common.

Data and shell scripts: reading a catalogue needs no lab. Who makes a change runs the scripts on `Tampering.host`, in this order: `saving`,
`changing`, `mending`.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from lemonstand.errors import InputError
from lemonstand.policy.kinds import load_kinds

if TYPE_CHECKING:
    from lemonstand.site import Site

SAVED = "/run/lemonstand-tampered.tar"
"""Where a host keeps the files that were changed until they are put back. Its presence tells that a run died."""
PACK = "tar --format=posix -cPf"
"""tar's own format has whole seconds alone, and a file of another time counts as written anew: services would be restarted for it."""
SETTLE_SECONDS = 2
"""After a reload: services read their files when they next have time, and what is asked at once may meet a process from before."""
WAS_LEFT = f"test ! -e {SAVED} || echo yes\n"
"""Prints something where a run died."""
PUT_BACK = f"tar -xPf {SAVED} && rm -f {SAVED}\n"
"""Puts back the files of a run that died; what runs on the host is left as it is, for an apply to see to."""


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

    def saving(self) -> str:
        """The script that saves the files. Until it has run there is nothing to mend."""
        # Only what is there is packed; the directories stay as they are.
        listed = f"ls -d {shlex.join(self.files)} 2>/dev/null | {PACK} {SAVED} -T -" if self.files else f"{PACK} {SAVED} -T /dev/null"
        return f"set -e\numask 077\n{listed}\n"

    def changing(self, before: str = "") -> str:
        """The script that makes the change; if it fails, the host is to be mended all the same.

        Args:
            before: shell commands to run first.
        """
        return f"set -e\n{before}{self.change}\n{self.apply}\n{self._settling()}"

    def mending(self) -> str:
        """The script that puts the files back and brings the host to them. It removes nothing that it can't put back."""
        # A file that was not there is not in the archive: it goes.
        gone = f"rm -f {shlex.join(self.files)}\n" if self.files else ""
        return f"set -e\ntar -tPf {SAVED} >/dev/null\n{self.mend}\n{gone}tar -xPf {SAVED}\n{self.apply}\n{self._settling()}rm -f {SAVED}\n"

    def _settling(self) -> str:
        return f"sleep {SETTLE_SECONDS}\n" if "reload" in self.apply else ""


TamperingT = TypeVar("TamperingT", bound="Tampering")


def at_home(made: TamperingT, site: Site) -> TamperingT:
    """The same on a host of this site: catalogues name the hosts of the shipped lab, which are called what their kinds are.

    Raises:
        InputError: the site has no host of that kind.
    """
    if made.host in site.hosts or made.host in site.apart:
        return made
    group = load_kinds().group_of(made.host)
    hosts = site.group(group) if group else ()
    if not hosts:
        raise InputError(f"{made.name} is done to a host of kind '{made.host}', and the lab has none", str(site.inventory), "leave it out")
    return made.model_copy(update={"host": hosts[0].name})
