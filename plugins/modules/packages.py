"""Documentation of the action `packages`; the work is done by plugins/action/packages.py and on_host/install_packages.py."""

# ruff: noqa: E501
from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install Debian packages without starting their services
description:
  - Asks dpkg once. Only where a package is missing, apt-get installs all missing ones in one go, without recommended ones, and keeps configuration files that are there.
  - No service of theirs is started meanwhile (a C(policy-rc.d) of its own); the first configuration a service ever runs with is its role's.
  - In check mode apt-get says what it would install.
version_added: "0.2.0"
author: lemonstand
options:
  names:
    description: Names of packages.
    type: list
    elements: str
    default: []
  roles:
    description: Roles of this collection whose own list (C(__ROLE_packages)) is added, so that one task does it for all of them. Their defaults and the play's variables hold as if each did it for itself.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says what would be installed, dependencies too.
    support: full
  diff_mode:
    description: Lists the packages.
    support: full
"""

EXAMPLES = r"""
- name: Install the time service
  lemonstand.lemonstand.packages:
    names: [chrony]
"""

RETURN = r"""
stdout:
  description: Says what was installed, or would be.
  returned: when changed
  type: str
  sample: "changed: installed chrony tzdata"
"""
