"""A training that is killed anywhere loses nothing: neither the old run that it replaces, nor a bit of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_run_that_is_killed_anywhere_ends_as_if_it_had_not_been(tmp_path):
    """At each `os.replace` and `fsync` of a run, of one that replaces another, and at 100 random moments."""
    script = Path(__file__).with_name("killing.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run = [sys.executable, str(script), str(tmp_path), "100"]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {kind: sorted(set(lost)) for kind, lost in found.items()} == {kind: [""] for kind in found}
    assert len(found["writes"]) >= 34
    assert len(found["writes of an overwriting run"]) > len(found["writes"])
    assert len(found["moments"]) == 100
