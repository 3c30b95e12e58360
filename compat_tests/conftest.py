"""Fixtures of the tests against what others wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from gopeer import build, go_missing


@pytest.fixture(scope="session")
def kcpgo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of kcpgo/, built once a session."""
    reason = go_missing()
    if reason is not None:
        pytest.skip(reason)
    return build(tmp_path_factory.mktemp("kcpgo"))
