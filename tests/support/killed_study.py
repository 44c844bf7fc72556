"""Kill a study again and again, and see what it ends with: for tests/study/test_study_folder.py, in its own process.

python killed_study.py KILLS FOLDER

Every study is a fork of this process, which has imported all but computed nothing, so that twenty of them take seconds.
Prints what differs from an undisturbed study, and how many were killed.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
os.environ["HF_HUB_OFFLINE"] = "1"

# These take a second that would be each fork's.
import dask.array  # noqa: F401
import matplotlib.font_manager  # noqa: F401
import transformers.models.bert.modeling_bert
import transformers.models.bert.tokenization_bert  # noqa: F401

from negprobe import HookedEncoder, builtin_pairs
from negprobe.study import run_study
from negprobe.study.folder import identity, study_folder
from negprobe.study.stages import STAGES
from negprobe.views import write_study
from negprobe.views.report import write

for stage in STAGES:
    object.__setattr__(stage, "pairs_in_shard", 3)
write.study_figures = lambda results: {}
write.study_report = lambda results, figures, manifest: ""
PAIRS = builtin_pairs()[::35]


def run(out: Path) -> None:
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    with study_folder(out, identity(model, PAIRS, {})) as (shards, _):
        write_study(run_study(model, PAIRS, shards=shards), out, "negprobe study")


def forked(out: Path) -> int:
    child = os.fork()
    if not child:
        try:
            run(out)
        except BaseException as error:
            print(f"a study failed: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    return child


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.suffix in (".parquet", ".nc")}


def main() -> None:
    kills, folder = int(sys.argv[1]), Path(sys.argv[2])
    start = time.perf_counter()
    os.waitpid(forked(folder / "undisturbed"), 0)
    seconds = time.perf_counter() - start
    expected = tables(folder / "undisturbed")
    print(f"{len(expected)} tables, {seconds:.1f} s undisturbed")
    chance, killed, finished = random.Random(0), 0, 0
    out = folder / "killed"
    while killed < kills or out.exists():
        child = forked(out)
        if killed < kills:
            time.sleep(chance.uniform(0, seconds))
        # A study that is done cannot be killed, and is a zombie until it is asked for.
        done, status = os.waitpid(child, os.WNOHANG if killed < kills else 0)
        if not done:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed += 1
            continue
        if status:
            sys.exit("a study failed")
        found = tables(out)
        different = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        print(f"differ: {different}" if different else "identical")
        finished += 1
        shutil.rmtree(out)
    print(f"{killed} killed, {finished} finished")


if __name__ == "__main__":
    main()
