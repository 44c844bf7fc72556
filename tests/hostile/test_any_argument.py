"""Every public function answers wrong values with a result or one clear error, and answers."""

import subprocess
import sys

from tests.support import ROOT


def test_public_functions_answer_wrong_values_with_a_result_or_one_clear_error() -> None:
    program = ROOT / "tests" / "support" / "wrong_arguments.py"
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
