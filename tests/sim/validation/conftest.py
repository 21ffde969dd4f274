"""Validators in great numbers, on a fake clock and with signatures that cost nothing."""

import importlib.util
import sys
from pathlib import Path

import pytest


def _load(name):
    spec = importlib.util.spec_from_file_location(
        f"ctpeer_validation_sim_{name}", Path(__file__).with_name(f"{name}.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_swarm = _load("swarm")


@pytest.fixture(scope="session")
def sim():
    """Return the module of the simulated swarm."""
    return _swarm


@pytest.fixture(scope="session")
def crowd(stand_in):
    """Return identities by number."""
    known = [stand_in(f"validator {i}") for i in range(20)]
    return lambda count: known[:count]
