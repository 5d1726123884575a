"""Names processes that are not ours on ports that are to be ours. Reads only.

Standard input: a JSON list of TCP ports. Exit 1 if there is one.
"""

import json
import re
import subprocess
import sys

# As the kernel has them: 15 letters at most.
OURS = {
    "dovecot",
    "imap-login",
    "submission-logi",
    "managesieve-log",
    "lmtp",
    "master",
    "gunicorn",
    "sshd",
    "systemd",
    "slapd",
    "smtpd",
    "certbot",
}

ports = set(json.load(sys.stdin))
strangers = []
for line in subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines():
    address, _, port = line.split()[3].rpartition(":")
    # Where ss names nobody (a process of another user, seen from a container), nothing can be said.
    holder = re.search(r'users:\(\("([^"]+)",pid=(\d+)', line)
    if int(port) in ports and not address.startswith(("127.", "[::1]")) and holder and holder.group(1) not in OURS:
        name, process = holder.groups()
        strangers.append(f"port {port} is taken by {name} (process {process}): stop that, or give it another port")
if strangers:
    sys.exit("\n".join(dict.fromkeys(strangers)))
