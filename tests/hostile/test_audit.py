"""What negprobe runs, reaches and writes: no pickles, no code of others, no network, nothing outside the folder."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import negprobe

PACKAGE = Path(negprobe.__file__).parent
SCRIPTS = PACKAGE.parent / "scripts"
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml"}
RUNS_OTHERS = {"subprocess", "pty", "code", "runpy", "socket", "urllib", "requests", "httpx", "http"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {"pd.read_pickle", "os.system", "os.popen", "torch.hub"}

# What reads pickles unless this option is given.
LOADERS = {"torch.load": "weights_only=True", "np.load": "allow_pickle=False"}


def findings(file: Path, modules: set[str]) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"imports {name}" for name in names if name.split(".")[0] in modules]
        elif isinstance(node, ast.Name) and node.id in CALLS:
            found.append(f"calls {node.id}")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in METHODS:
            found.append(f"calls {ast.unparse(node)}")
        elif isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in LOADERS:
            option = LOADERS[called]
            safe = any(f"{each.arg}={ast.unparse(each.value)}" == option for each in node.keywords)
            found += [] if safe else [f"calls {called} without {option}"]
        elif isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "shell", "allow_pickle"):
            value = ast.unparse(node.value)
            found += [f"{node.arg}={value}"] if value != "False" else []
    return [f"{file.name}:{node_said}" for node_said in found]


def test_the_package_has_no_pickle_no_eval_and_starts_nothing() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 50
    # Nothing opens a connection itself (the hub's client does), but the engine that asks whether a Ray head answers.
    found = [finding for file in files for finding in findings(file, MODULES | RUNS_OTHERS)]
    assert found == ["engines.py:imports socket"]


@pytest.mark.skipif(not SCRIPTS.is_dir(), reason="needs the source tree")
def test_the_scripts_have_no_pickle_and_no_eval() -> None:
    assert not [said for file in SCRIPTS.glob("*.py") for said in findings(file, MODULES)]


def test_the_audit_finds_what_it_looks_for(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    lines = ("import pickle", "from dill import x", "eval('1')", "torch.load(f)", "np.load(f)", "load(shell=True)")
    bad.write_text("\n".join(lines))
    assert len(findings(bad, MODULES)) == len(lines)


WATCHED = """
import os, sys
home, model = sys.argv[1], sys.argv[2]
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "pickle.find_class", "subprocess.Popen", "os.system"):
        if allowed(event, arguments):
            return
        print("AUDIT", event, arguments, file=sys.__stderr__)
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        path = os.path.abspath(os.fsdecode(arguments[0])) if isinstance(arguments[0], (str, bytes)) else ""
        if path and not path.startswith((home, "/dev/")):
            print("AUDIT writes", path, file=sys.__stderr__)
    elif event == "exec" and getattr(arguments[0], "co_filename", "").startswith(model):
        print("AUDIT runs", arguments[0].co_filename, file=sys.__stderr__)
def allowed(event, arguments):
    # pandas, ctypes and platform ask the system's own programs about the machine.
    program = os.path.basename(os.fsdecode(arguments[0])) if event == "subprocess.Popen" else ""
    # dask names a task by the pickle of its function, which it makes and reads back in memory; it reads no file so.
    frame = sys._getframe(2)
    own = event == "pickle.find_class" and frame.f_code.co_filename.endswith(os.path.join("dask", "tokenize.py"))
    return own or program in ("ldconfig", "uname", "lscpu", "fc-list")
sys.addaudithook(watch)
from typer.testing import CliRunner
from negprobe.cli import app
for line in sys.argv[3:]:
    result = CliRunner().invoke(app, line.split("|"))
    assert result.exit_code == 0, (line, result.output, result.exception)
if os.environ.get("BREAK_OUT"):
    open(os.environ["BREAK_OUT"], "w").close()
    import socket
    socket.getaddrinfo("localhost", 1)
"""


def watched(home: Path, *commands: str, **environment: str) -> list[str]:
    """What the commands do that they should not, in a process that starts in a new home."""
    home.mkdir()
    inside = {"HOME": home, "TMPDIR": home, "MPLCONFIGDIR": home, "XDG_CACHE_HOME": home, "HF_HOME": home}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "TRANSFORMERS_"))}
    settings = kept | {name: str(path) for name, path in inside.items()} | environment
    settings["PYTHONDONTWRITEBYTECODE"] = "1"
    model = str(PACKAGE / "models" / "tiny-negation")
    command = [sys.executable, "-c", WATCHED, str(home), model, *commands]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=home, env=settings, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [line for line in ended.stderr.splitlines() if line.startswith("AUDIT")]


@pytest.mark.slow
def test_commands_reach_no_network_and_write_nothing_outside_their_folder(tmp_path: Path) -> None:
    model = str(PACKAGE / "models" / "tiny-negation")
    hostile = "../../../out"
    (tmp_path / "pairs.csv").write_text(
        "original,counterfactual,target,foil,category\n"
        + "".join(
            f"The {noun} is {a}. So the {noun} is [MASK].,The {noun} is not {a}. So the {noun} is [MASK].,"
            f"{a},{b},{hostile}\n"
            for noun, a, b in (("door", "open", "closed"), ("bath", "hot", "cold"), ("gate", "open", "closed"))
        )
    )
    assert not watched(
        tmp_path / "home",
        f"study|{model}|--pairs|{tmp_path / 'pairs.csv'}|--patch-pairs|2|--circuit-pairs|2|--out|out",
        f"compare|../../a.|../../not a.|--model|{model}|--out|compared",
        "patch|The door is open. So the door is [MASK].|The door is not open. So the door is [MASK].|--target|open"
        f"|--foil|closed|--model|{model}|--out|patched",
        f"view|--limit|2|--model|{model}|--out|view.html",
        f"evaluate|builtin|--model|{model}|--out|scores.csv",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "pairs.csv"]


def test_the_watch_sees_a_file_outside_and_the_network(tmp_path: Path) -> None:
    seen = watched(tmp_path / "home", "--help", BREAK_OUT=str(tmp_path / "outside"))
    assert [line.split()[1] for line in seen] == ["writes", "socket.getaddrinfo"]
