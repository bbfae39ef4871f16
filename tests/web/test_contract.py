"""The provider's contract (docs/contract.md), unchanged, against a gateway that refuses what the provider refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sluicegate.testing import local_emulator
from tests.contract.conftest import DEPLOYMENTS, QUICK
from tests.web.conftest import Served

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("dialect", "least"), [("openai", 195), ("azure", 240)])
def test_the_contract_holds_against_the_gateway(tmp_path: Path, dialect: str, least: int) -> None:
    """All tests that any server can be asked; those that order a failure or the time are the emulator's alone."""
    models = json.dumps({name: name for name in DEPLOYMENTS})
    options = ("--set", "gateway_strict=true", "--set", f"gateway_models={models}")
    slow = os.environ.get("CONTRACT_SLOW") == "1"
    with local_emulator(dialect=dialect, deployments=DEPLOYMENTS, **QUICK) as provider:
        served = Served(provider.url, tmp_path, options, dialect=dialect).start()
        try:
            environment = os.environ | {
                "CONTRACT_BASE_URL": served.url, "CONTRACT_DIALECT": dialect, "CONTRACT_KEY": served.key,
                "CONTRACT_MODEL": "gpt-4.1", "CONTRACT_API_VERSION": "", "CONTRACT_POLL_S": "0.1",
                "CONTRACT_PATIENCE_S": "60", "CONTRACT_PAY": "1",
            }  # fmt: skip
            command = [sys.executable, "-m", "pytest", "tests/contract", "-q", "--tb=short"]
            done = subprocess.run(
                [*command, *(() if slow else ("-m", "not slow"))], cwd=ROOT, env=environment, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
        finally:
            served.end()

    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= least
