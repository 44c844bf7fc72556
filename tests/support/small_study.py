"""The command `study` on a few pairs, in a process of its own.

It is forked from one that has imported everything, as that takes longer than the study.
"""

import multiprocessing
import os
import resource
from multiprocessing.process import BaseProcess
from pathlib import Path

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["negprobe.study.run", "transformers.models.auto.modeling_auto"])


def start(out: Path, said: Path, *options: str, file_limit: int = 0, **environment: str) -> BaseProcess:
    """A study into `out` that has begun, and says in `said` what it has to say but its progress.

    Args:
        out: The study's folder.
        said: The file that its standard error is.
        options: Of the command.
        file_limit: How many bytes a file may have, as on a disk that is full; 0 for any.
        environment: Variables of its environment.
    """
    process = _PROCESSES.Process(target=_run, args=(out, said, options, file_limit, environment))
    process.start()
    return process


def _run(out: Path, said: Path, options: tuple[str, ...], file_limit: int, environment: dict[str, str]) -> None:
    with said.open("w") as errors, Path(os.devnull).open("w") as nowhere:
        os.dup2(errors.fileno(), 2)
        os.dup2(nowhere.fileno(), 1)
    os.environ.update(environment)
    from negprobe.cli import app
    from negprobe.study.stages import STAGES
    from negprobe.views.report import write

    for stage in STAGES:
        object.__setattr__(stage, "pairs_in_shard", 2)
    write.study_figures = lambda results: {}
    write.study_report = lambda results, figures, manifest: ""
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    app(["study", "--limit", "12", "--patch-pairs", "4", "--circuit-pairs", "4", "--out", str(out), *options])
