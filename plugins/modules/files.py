"""Documentation of the action `files`; the work is done by plugins/action/files.py and plugins/plugin_utils/on_host/hold_files.py."""

# ruff: noqa: E501
from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Bring the files, directories and system users of a role to what they should be
description:
  - Works out on the controller what each file should hold, asks the host once about all of them, and sends only what differs.
  - A file is replaced in one step, with its owner and mode from the first octet on, after its program has taken it (O(files[].validate)). A text that is refused leaves the old file, and does not keep the other files from being written; the task fails and names each.
  - Check mode and diff are exact, on an empty host too. A second run changes nothing.
  - Speaks to the host by one short program on standard input of its Python; needs a connection with pipelining, such as ssh.
version_added: "0.2.0"
author: lemonstand
options:
  files:
    description:
      - What should be, in this order. An entry names its text by at most one of O(files[].template), O(files[].copy) and O(files[].content).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path on the host.
        type: path
        required: true
      state:
        description: V(absent) removes what is there.
        type: str
        choices: [file, directory, absent]
        default: file
      template:
        description: Template in the role's C(templates/). Left out, it is the path with C(.j2).
        type: str
      vars:
        description: Variables for the template beside those of the play.
        type: dict
      copy:
        description: File in the role's C(files/) that is taken as it is.
        type: str
      content:
        description: The text itself.
        type: str
      owner:
        description: Name of the owner.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
      mode:
        description: Octal digits as text. Left out, V(0644), of a directory V(0755).
        type: str
      validate:
        description: Command without a shell that must succeed before the text replaces the old one; C(%s) stands for a file with the text.
        type: str
      in_place:
        description: The file may be a mount of its own, as in containers. Where it cannot be replaced it is overwritten.
        type: bool
        default: false
      secret:
        description: Never show the text in a diff.
        type: bool
        default: false
      only:
        description: Of a directory. Names of the files that may be in it; other files are removed.
        type: list
        elements: str
      during_run:
        description: Why the text is known only while Ansible runs; for those who work out what a host should hold without it.
        type: str
  roles:
    description: Roles of this collection whose own list (C(__ROLE_files)) is added, so that one task does it for all of them. Their defaults and the play's variables hold as if each did it for itself.
    type: list
    elements: str
    default: []
  accounts:
    description: System users that are made if they are missing, before any file. They have no password; the home directory is not made.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the user and of its group.
        type: str
        required: true
      home:
        description: Home directory.
        type: str
        required: true
      comment:
        description: What it is for.
        type: str
        default: ""
      shell:
        description: Login shell. The default lets nobody in. A program that takes no commands makes a user that does one thing, whoever comes as it.
        type: str
        default: /usr/sbin/nologin
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: Shows texts, or owner, group and mode.
    support: full
"""

EXAMPLES = r"""
- name: Write the configuration of the time service
  lemonstand.lemonstand.files:
    files:
      - {path: /etc/systemd/system/chrony.service.d, state: directory}
      # From templates/etc/chrony/chrony.conf.j2.
      - {path: /etc/chrony/chrony.conf, validate: chronyd -p -f %s}
      - {path: /usr/local/lib/example/tool, copy: tool.py, mode: "0755"}
      - {path: /etc/example/password, content: "{{ example_password }}", mode: "0600", secret: true}
"""

RETURN = r"""
accounts:
  description: Numbers of the users in O(accounts).
  returned: always
  type: dict
  sample: {vmail: {uid: 998, gid: 998}}
stdout:
  description: A line for each thing that changed, or would.
  returned: when changed
  type: str
  sample: "changed: write /etc/chrony/chrony.conf (content)"
"""
