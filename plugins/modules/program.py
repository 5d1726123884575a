"""Documentation of the action `program`; the work is done by plugins/action/program.py."""

# ruff: noqa: E501
from __future__ import annotations

DOCUMENTATION = r"""
module: program
short_description: Run a Python program of the role's on the host and leave nothing of it there
description:
  - The program comes over standard input of the host's Python, and its order with it, so no secret is an argument of a process, and the first check run of an empty host works.
  - It says what it did in lines that begin with C(changed:), or prints a JSON object with a list C(changed).
version_added: "0.2.0"
author: lemonstand
options:
  src:
    description: File in the role's C(files/).
    type: str
    required: true
  entry:
    description: Function of the program that takes the order, base64 of JSON, and returns the exit status.
    type: str
    default: main_encoded
  order:
    description: What the program is told. C(check) is added, true in check mode.
    type: dict
    default: {}
attributes:
  check_mode:
    description: The program is told, and must change nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Apply kernel settings
  lemonstand.lemonstand.program:
    src: apply_sysctls.py
    order: {settings: {net.ipv4.ip_forward: 1}, not_ours: []}
"""

RETURN = r"""
answer:
  description: What it printed, if that is a JSON object.
  returned: if it is
  type: dict
rc:
  description: Exit status.
  returned: always
  type: int
stdout:
  description: What it printed.
  returned: always
  type: str
stderr:
  description: What it complained of.
  returned: always
  type: str
"""
