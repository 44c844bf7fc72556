"""Search the circuit that hears a negation, prove it on held-out pairs, and save it.

    python scripts/find_circuit.py tiny-negation --out results/circuit
    python scripts/find_circuit.py MODEL --pairs scone --sample 80 --threshold 0.95

Everything outside the circuit is set to its mean by role, in the counterfactual's run; a pair that has a length-matched
control is compared with it. OUT gets `circuit.json`, for `Circuit.load`, and `circuit.png` and `faithfulness.png`.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from negprobe.attention import AttentionProbe
from negprobe.models import HookedEncoder
from negprobe.patching import answerable, find_circuit
from negprobe.statements import from_control, load_pairs
from negprobe.study.run import prepared
from negprobe.terminal import PlainConsole, clear_errors, printed_warnings, progress_on
from negprobe.views import circuit_graph, faithfulness_curve, save_figure


def main(
    model: Annotated[str, typer.Argument(help="'tiny-negation', a model folder, or a hub name.")] = "tiny-negation",
    pairs: Annotated[
        list[str] | None,
        typer.Option(help="'builtin', a file of pairs, or a public data set; more than once for all."),
    ] = None,
    sample: Annotated[int | None, typer.Option(min=4, help="Use so many of the pairs, drawn at random.")] = None,
    ranking: Annotated[str, typer.Option(help="'exact', 'attribution' or 'integrated_gradients'.")] = "exact",
    ablation: Annotated[str, typer.Option(help="'mean', 'swap' or 'zero'.")] = "mean",
    threshold: Annotated[float, typer.Option(help="The faithfulness that the search asks for.")] = 0.9,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("negprobe-circuit"),
    device: Annotated[str | None, typer.Option(help="Where to run; by default a GPU if there is one.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample, the split, random sets and the bootstrap.")] = 0,
) -> None:
    """Search, prove, save."""
    console = PlainConsole()
    with clear_errors(), printed_warnings():
        out.mkdir(parents=True, exist_ok=True)
        encoder = HookedEncoder.from_pretrained(model, device=device)
        loaded = [load_pairs(name) for name in pairs or ["builtin"]]
        for reason in (reason for part in loaded for reason in part.dropped):
            console.print(f"left out {reason}")
        asked = answerable(encoder, [pair for part in loaded for pair in part.pairs])
        for index, reason in asked.unanswerable.items():
            console.print(f"left out pair {index}: {reason}")
        drawn = sorted(np.random.default_rng(seed).permutation(list(asked.pairs))[:sample].tolist())
        chosen = []
        for index in drawn:
            member, problem = prepared(encoder, asked.pairs[index])
            if problem:
                console.print(f"left out the control of pair {index}: {problem}")
            chosen.append(from_control(member.pair))
        with progress_on(console) as report:
            circuit = find_circuit(
                encoder,
                chosen,
                ranking=ranking,  # type: ignore[arg-type]
                direction="denoising",
                ablation=ablation,  # type: ignore[arg-type]
                threshold=threshold,
                seed=seed,
                progress=report,
            )
        circuit.save(out / "circuit.json")
        readings = AttentionProbe(encoder).readings(chosen)
        save_figure(circuit_graph(circuit, readings), out / "circuit.png")
        save_figure(faithfulness_curve(circuit), out / "faithfulness.png")
        heads = sum(component.head is not None for component in circuit.components)
        console.print(f"{circuit}.")
        console.print(f"{heads} of {encoder.cfg.n_layers * encoder.cfg.n_heads} heads. Wrote to {out}.", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
