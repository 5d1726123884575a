"""Whether a host of a kind is at work: its units run and its doors greet, as the second turn of an apply asks it (record 0040)."""

from __future__ import annotations

from lemonstand.admin.access import PYTHON, Hosts, program
from lemonstand.paths import data_dir
from lemonstand.policy.kinds import MANAGEMENT, load_kinds
from lemonstand.site import Host

ANSWER_SECONDS = 60
"""How long a host may take."""


def wait_until_it_answers(hosts: Hosts, host: Host, kind: str, *, within: int) -> None:
    """Waits until a host is at work.

    Args:
        hosts: the way to it.
        host: which.
        kind: the group it is of, such as `frontends`.
        within: seconds for the whole question, the way there included.

    Raises:
        LemonstandError: it is not after a minute, and what is missing; or it gives no answer.
    """
    legs = [leg for zone, leg in host.interfaces.items() if zone != MANAGEMENT]
    order = {
        "doors": [{"port": port, "says": says} for port, says in load_kinds().kinds[kind].answers.items()],
        "addresses": [str(address) for leg in legs for address in leg.addresses],
        "seconds": ANSWER_SECONDS,
    }
    text = (data_dir("playbooks") / "files" / "member_answers.py").read_text(encoding="utf-8")
    hosts.run(host.name, PYTHON, program(text, order), seconds=within)
