"""The command line: parses, calls, prints. Everything it does can be done from Python with the packages it calls.

One module a topic; each hangs its commands on `main` when it is imported, in the order of the help text.
"""

from lemonstand.cli.base import main  # isort: skip
from lemonstand.cli import (
    alarms,
    backup,
    certificates,
    deploy,
    dkim,
    documents,
    evidence,
    keys,
    lab,
    mail,
    mutate,
    operations,
    probe,
    redteam,
    report,
    service,
    store,
    user,
    verify,
)

__all__ = [
    "alarms",
    "backup",
    "certificates",
    "deploy",
    "dkim",
    "documents",
    "evidence",
    "keys",
    "lab",
    "mail",
    "main",
    "mutate",
    "operations",
    "probe",
    "redteam",
    "report",
    "service",
    "store",
    "user",
    "verify",
]
