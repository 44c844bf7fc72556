"""Every public function answers wrong values with a result or one clear error, and answers."""

import subprocess
import sys
from pathlib import Path


def test_public_functions_answer_wrong_values_with_a_result_or_one_clear_error() -> None:
    program = Path(__file__).with_name("wrong_arguments.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
