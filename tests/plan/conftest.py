from dataclasses import replace

import pytest

from hwq.plan import DEVICES, device


@pytest.fixture
def large(monkeypatch):
    """Return a part whose requantizers multiply in steps, with room for everything."""
    monkeypatch.setitem(DEVICES, "hx8k", replace(DEVICES["hx8k"], lc=1_000_000, ebr=500))
    return device("hx8k")
