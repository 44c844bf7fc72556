"""`negprobe pairs` shows what is found in pairs, runs no model, and writes pairs that are read back as they are."""

import json

import pytest
from typer.testing import CliRunner

from negprobe import HookedEncoder, StatementPair, builtin_pairs, load_pairs
from negprobe.cli import app
from negprobe.pair_listing import write_pairs
from negprobe.statements import complete


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Runs the command on rows of a file with Windows line endings, in which the model must not be run."""
    monkeypatch.setattr(HookedEncoder, "forward", lambda *_, **__: pytest.fail("a model was run"))

    def run_on(*rows, **options):
        path = tmp_path / "p.jsonl"
        path.write_bytes("".join(f"{json.dumps(row)}\r\n" for row in rows).encode())
        result = run("pairs", path, *(part for name, value in options.items() for part in (f"--{name}", value)))
        assert result.exit_code == 0, result.output
        return result.output

    return run_on


def pair(original, counterfactual, **fields):
    return {"original": original, "counterfactual": counterfactual, **fields}


def lines_of(output, number):
    """The lines of a pair by their labels; a line without a label continues the one before."""
    block = output.split(f"pair {number}")[1].split("\n\n")[0]
    lines: dict[str, str] = {}
    for line in block.splitlines()[1:]:
        label = line[2:18].strip() or list(lines)[-1]
        lines[label] = f"{lines.get(label, '')} {line[18:].strip()}".strip()
    return lines


def test_each_pair_has_its_cue_affected_word_unmatched_words_and_control(listed):
    output = listed(
        pair("The door is open.", "The door isn't open.", cluster="doors", category="c"),
        pair("The door is open.", "The gate is open."),
        pair("The door is open.", "The door is not open.", control="The gate is now open."),
        pair("The door is open. " * 40, "The door is not open. " * 40),
        pair("Is the door open?", "Isn't the door open?"),
    )
    assert "pair 1 · cluster doors · c · p" in output
    assert lines_of(output, 1) == {
        "original": "The door is open.",
        "counterfactual": "The door isn't open.",
        "cue": "n't: \"n't\"",
        "affected": "'open'",
        "unmatched": "'is' of the original; \"isn't\" of the counterfactual",
        "control": "The door is now really open.",
    }
    second = lines_of(output, 2)
    assert (second["cue"], second["affected"], second["control"]) == ("none found", "none found", "none")
    third = lines_of(output, 3)
    assert third["given control"] == "not valid: the control differs from the counterfactual in more than the cue"
    assert third["control"] == "The door is now open."
    assert "tokens, more than the" in lines_of(output, 4)["left out"]
    assert lines_of(output, 5)["control"] == "none"


def test_the_summary_counts_cues_controls_and_clusters(listed):
    output = listed(
        pair("The door is open.", "The door is not open.", cluster="a"),
        pair("The door is wet.", "The door is not wet.", cluster="a"),
        pair("The door is new.", "The door is never new."),
        pair("Is the door open?", "Isn't the door open?"),
        pair("The door is open.", "The gate is open."),
    )
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if line[:1] == "│"]
    for row in (
        ["all", "5", "100.0%"],
        ["measurable", "5", "100.0%"],
        ["with a cue", "4", "80.0%"],
        ["with an affected word", "4", "80.0%"],
        ["with a control", "3", "60.0%"],
        ["not", "2", "2"],
        ["never", "1", "1"],
        ["n't", "1", "0"],
        ["a", "2"],
        ["pairs that stand alone", "3"],
    ):
        assert row in rows
    assert "Clusters: 1" in output


def test_what_is_written_is_read_back_and_can_be_corrected(listed, tmp_path):
    hostile = pair("=1 is [b]open[/b]\u2028\x1b[31m.", "=1 is not [b]open[/b]\u2028\x1b[31m.", cluster=3, note="x\ry")
    out = tmp_path / "out.jsonl"
    listed(pair("The door is open.", "The door isn't open.", target="open", id=7), hostile, out=out)
    found = load_pairs(out).pairs
    tokenizer = HookedEncoder.from_pretrained("tiny-negation").tokenizer
    assert found == tuple(complete(pair, tokenizer) for pair in load_pairs(tmp_path / "p.jsonl").pairs)
    assert found[0].control == "The door is now really open." and dict(found[0].extra) == {"id": 7}
    out.write_text(out.read_text(encoding="utf-8").replace("now really", "really now"), encoding="utf-8")
    again = run("pairs", out)
    assert lines_of(again.output, 1)["control"] == "The door is really now open."


def test_all_builtin_pairs_are_read_back(tmp_path):
    pairs = (*builtin_pairs(), StatementPair("a", "b", source="s", extra=(("k", 0.5), ("l", True))))
    write_pairs(pairs, tmp_path / "all.jsonl")
    assert load_pairs(tmp_path / "all.jsonl").pairs == pairs


def test_markup_and_control_characters_are_shown_as_they_are(listed):
    output = listed(
        pair("It is [red]open[/x]\x1b[31m\u202e :smile:.", "It is not [red]open[/x]\x1b[31m\u202e :smile:.")
    )
    assert output.count(r"[red]open[/x]\x1b[31m\u202e :smile:.") >= 2
    assert not set(output) & set("\x1b\u202e")


def test_limit_and_what_was_left_out(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("original,counterfactual\n,x\nThe door is open.,The door is not open.\na,not a\n", encoding="utf-8")
    output = run("pairs", path, "--limit", 1).output
    assert "left out" in output and "line 2: The original of a pair is empty" in output
    assert "pair 1" in output and "pair 2" not in output


def test_another_kind_of_file_is_refused_before_anything_is_read(tmp_path):
    result = run("pairs", tmp_path / "missing.csv", "--out", tmp_path / "x.csv")
    assert result.exit_code == 1 and "is not a .jsonl file" in result.output


def test_words_that_correspond_although_they_differ_are_shown(listed, tmp_path):
    cues = tmp_path / "cues.toml"
    cues.write_text('[cues.function]\nfar = ["far"]\n')
    output = listed(
        pair("The door opens.", "The door does not open."),
        pair("The door is open.", "The window is open."),
        pair("The door is open.", "The door is far open."),
        cues=cues,
    )
    assert lines_of(output, 1)["aligned"] == "'opens' with 'open' (inflected)"
    assert lines_of(output, 2)["aligned"] == "'door' with 'window' (replaced)"
    assert lines_of(output, 3)["cue"] == "far: 'far'"
    assert "aligned" not in lines_of(output, 3)
    assert [line.split("│")[2].strip() for line in output.splitlines() if "that is aligned" in line] == ["2"]
