"""Documentation of the action `certificates`; the work is done by plugins/action/certificates.py and two programs of the role's."""

# ruff: noqa: E501
from __future__ import annotations

DOCUMENTATION = r"""
module: certificates
short_description: Keys made on a host, signed on the controller, certificates put in place
description:
  - Part of the role P(lemonstand.lemonstand.certificates#role), whose C(files/) holds the programs for the host and for the controller. A key that is made on a host never leaves it.
  - Where nothing is to be done the host is asked once.
version_added: "0.2.0"
author: lemonstand
options:
  role:
    description: Role of this collection whose variables (C(certificates_requests) and so on) stand for all other options.
    type: str
  requests:
    description: What this host needs signed, each with C(name), C(ca), C(usage), C(names) and perhaps C(group).
    type: list
    elements: dict
    default: []
  trusted_cas:
    description: CAs whose certificate is put on the host.
    type: list
    elements: str
    default: []
  files:
    description: Certificates an operator supplies, by name, each with the paths C(certificate) and C(key) on the controller.
    type: dict
    default: {}
  renewed_on_host:
    description: Names for which something on the host brings certificates.
    type: list
    elements: str
    default: []
  renew_now:
    description: Sign everything anew.
    type: bool
    default: false
  new_keys:
    description: And with new keys.
    type: bool
    default: false
  only_due:
    description: Of what is there, sign anew what ends soon, and touch nothing else. What is due and can't be renewed fails, once the rest is in place.
    type: bool
    default: false
  pki_dir:
    description: Directory on the controller with the CAs.
    type: str
  signer_command:
    description: Command, run on the controller, of a signer that has the CAs instead; the directory gets copies of their certificates.
    type: list
    elements: str
    default: []
  ca_label:
    description: Put into the subject of a CA that is made.
    type: str
  ca_name_constraints:
    description: DNS suffixes a CA may sign for, by CA.
    type: dict
    default: {}
  ca_days:
    description: Life of a CA, in days.
    type: int
  days:
    description: Life of a certificate, in days.
    type: float
  renew_days:
    description: The rest of life below which a certificate is signed anew, in days.
    type: float
attributes:
  check_mode:
    description: Says what would be made, signed or written.
    support: full
  diff_mode:
    description: There is nothing to show but those lines.
    support: none
"""

EXAMPLES = r"""
- name: Make keys, sign, put certificates in place
  lemonstand.lemonstand.certificates:
    role: certificates
  vars:
    certificates_requests: [{name: example, ca: hosts, usage: server, names: [host.site.example.org]}]
    certificates_trusted_cas: [hosts]
"""

RETURN = r"""
stdout:
  description: A line for each thing that changed, or would.
  returned: always
  type: str
  sample: "changed: certificate example: there is none"
"""
