"""What a lab leaves behind when it goes down."""

from __future__ import annotations

import subprocess

from lemonstand.lab import network
from lemonstand.lab.topology import Topology


def test_nothing_runs_on_in_the_namespaces_of_a_lab_that_is_gone() -> None:
    """A connection that outlived its lab would be taken for the way to the next one of that name."""
    topology = Topology("gone", "10.85")
    subprocess.run(["ip", "netns", "add", topology.controller], check=True)
    with subprocess.Popen(["ip", "netns", "exec", topology.controller, "sleep", "300"]) as left:
        try:
            assert left.poll() is None
        finally:
            network.remove(topology)
        assert left.wait(10) != 0
    assert not network.exists(topology.controller)
