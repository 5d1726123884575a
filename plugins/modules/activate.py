"""Documentation of the action `activate`; the work is done by plugins/action/activate.py and by programs on the host."""

# ruff: noqa: E501
from __future__ import annotations

DOCUMENTATION = r"""
module: activate
short_description: Bring services, rules and kernel settings in force as they are on disk
description:
  - Takes steps in their order, in as few trips to the host as that allows. The first that fails ends the task.
  - A unit is brought to its files by C(/usr/local/lib/lemonstand/converge-service), which the role P(lemonstand.lemonstand.base#role) puts on hosts. It remembers with which files a unit was last started or reloaded, and does what the difference asks for; so no change is ever lost, whoever made it. Every unit is enabled. Where one fails the end of its journal is printed.
  - In check mode programs on the host get C(--check) and say what they would do. One that is not there yet, as on an empty host, counts as a change.
version_added: "0.2.0"
author: lemonstand
options:
  steps:
    description: Each is exactly one of O(steps[].unit), O(steps[].off), O(steps[].tool) and O(steps[].program).
    type: list
    elements: dict
    default: []
    suboptions:
      unit:
        description: Name of a systemd unit, with its ending.
        type: str
      restart:
        description: Files or directories for which the unit is restarted.
        type: list
        elements: str
      reload:
        description: Files or directories for which a reload of the unit is enough.
        type: list
        elements: str
      also:
        description: Other units that get the same policy for what comes after a crash, and are not touched otherwise.
        type: list
        elements: str
      off:
        description: Name of a systemd unit, with its ending, that the host has no use for (any more). It is stopped, and starts at no boot.
        type: str
      tool:
        description: Absolute path and arguments of a program that a role has put on the host. It says what it did in lines that begin with C(changed:), and understands C(--check). No secrets.
        type: list
        elements: str
      confirm:
        description:
          - Absolute path and arguments of what is run over a new connection after O(steps[].tool) said C(changed:) or C(unconfirmed:), unless in check mode.
          - So a change that could shut the controller out is undone by its program unless the controller comes in again.
        type: list
        elements: str
      program:
        description: File in the role's C(files/), a Python program that runs on the host from standard input, as M(lemonstand.lemonstand.program) does it.
        type: str
      order:
        description: What O(steps[].program) is told. C(check) is added.
        type: dict
  roles:
    description: Roles of this collection whose own list (C(__ROLE_steps)) is added, so that one task does it for all of them. Their defaults and the play's variables hold as if each did it for itself.
    type: list
    elements: str
    default: []
  only:
    description: A folder, with its last C(/). Units are brought to those of their files that lie there and to no others; nothing is started or enabled, and other steps are left out.
    type: str
    default: ""
attributes:
  check_mode:
    description: Says what would happen.
    support: full
  diff_mode:
    description: There is nothing to show but those lines.
    support: none
"""

EXAMPLES = r"""
- name: Apply rules, then bring the time service to the configuration on disk
  lemonstand.lemonstand.activate:
    steps:
      - tool: [/usr/local/lib/lemonstand/packet-filter, apply, --rollback, "45"]
        confirm: [/usr/local/lib/lemonstand/packet-filter, confirm]
      - unit: chrony.service
        restart: [/etc/chrony/chrony.conf]
"""

RETURN = r"""
rc:
  description: Exit status of the last trip.
  returned: always
  type: int
stdout:
  description: A line for each thing that changed, or would; and whatever else programs printed.
  returned: always
  type: str
  sample: "changed: restart chrony.service (/etc/chrony/chrony.conf)"
stderr:
  description: What the last trip complained of.
  returned: if a step was taken
  type: str
"""
