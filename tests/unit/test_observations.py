"""What is noted on the way, and what a busy machine lets a check say."""

from __future__ import annotations

import pytest

from lemonstand import observations
from lemonstand.outcomes import Invalid, Unmet, expect


@pytest.mark.parametrize(("load", "ends"), [(3.0, Unmet), (40.0, Invalid)])
def test_a_busy_machine_says_nothing_of_time(load: float, ends: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "_loads", {})
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))
    observations.strained("store", load, 2)
    with pytest.raises(ends) as told:
        expect(False, "told late", seen="9 s", expected="2 s", late=True)
    assert ("load 40 on 2 CPUs of store" in str(told.value)) == (ends is Invalid)
    with pytest.raises(Unmet):
        expect(False, "another answer", seen="no", expected="yes")
