"""What the tests of commands share: verdicts made to order, as those of validation have them."""

import importlib.util
from pathlib import Path

_PATH = Path(__file__).parents[1] / "validation" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("ctpeer_unit_evidence", _PATH)
_evidence = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_evidence)

root, losses = _evidence.root, _evidence.losses
make_case, make_verdict, sign = _evidence.make_case, _evidence.make_verdict, _evidence.sign
