"""Runs playbooks: the only place that starts Ansible. Events come in, progress, a log and a record of the run come out."""

from lemonstand.deploy.record import Failure, HostTally, Observer, Outcome, RunRecord
from lemonstand.deploy.run import INTERRUPTED, JUDGED, RunResult, repeat_command, run_playbook

__all__ = [
    "INTERRUPTED",
    "JUDGED",
    "Failure",
    "HostTally",
    "Observer",
    "Outcome",
    "RunRecord",
    "RunResult",
    "repeat_command",
    "run_playbook",
]
