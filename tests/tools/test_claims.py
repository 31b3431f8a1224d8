"""What notebooks state is what their cells print or results files say; and the tool that looks is itself tested."""

# ruff: noqa: E402 - the tools are scripts in a folder of their own
from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools"))

import claims
from figures import figure

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))

RESULTS = {"share": 0.9914, "seconds": {"median": 12.34}, "rows": [{"kind": "flow", "weights": 13_152_770}]}
PROSE = """\
The flow head is right in **99.1 %**<!-- result: heads/share:.1% --> of scenes, after
12.3<!-- result: heads/seconds/median:.1f --> s. It has 13.2
million<!-- result: heads/rows/kind=flow/weights:.1fM --> weights. From 99<!-- result: heads/share*100:.0f --> to 100 %
<!-- nothing to do with results -->.
"""


@pytest.fixture
def course(tmp_path):
    """Writes a course of one notebook and one results file, and returns its folder."""

    def write(prose: str, results: dict = RESULTS, printed: str = "It took 4.96 s and all of them, 100 %.") -> Path:
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "book").mkdir(exist_ok=True)
        (tmp_path / "results" / "heads.json").write_text(json.dumps(results), encoding="utf-8")
        cells = [nbformat.v4.new_markdown_cell(prose), nbformat.v4.new_code_cell("measure()")]
        notebook = nbformat.v4.new_notebook(cells=cells)
        jupytext.write(notebook, tmp_path / "notebooks" / "07_heads.py", fmt="py:percent")
        notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text=printed)]
        nbformat.write(notebook, tmp_path / "notebooks" / "07_heads.ipynb")
        load.cache_clear()
        return tmp_path

    load = sys.modules["figures"].load
    yield write
    load.cache_clear()


# --- this repository ---


def test_every_claim_is_what_its_results_file_says():
    wrong = [claim.complaint() for claim in claims.all_claims() if not claim.holds]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_in_a_notebooks_prose_is_printed_or_names_its_source(path):
    printed = claims.printed_by(path.with_suffix(".ipynb"))
    found = [line for text in claims.texts_of(path) for line in claims.unbacked_in(text, printed)]
    assert not found, "\n" + "\n".join(found)


# --- claims that name a results file ---


def test_claims_that_hold(course):
    assert [claim.right for claim in claims.all_claims(course(PROSE))] == ["99.1 %", "12.3", "13.2 million", "99"]


def test_a_share_of_a_hundred_stands_before_a_unit_of_its_own(course):
    assert figure("heads/share*100:.1f", course(PROSE) / "results") == "99.1"


def test_nothing_is_wrong_with_a_true_text(course):
    root = course(f"{PROSE}\nIt took 5 s.")
    assert claims.problems(root) == []
    assert claims.main(["--check"], root) == 0


def test_a_changed_results_file_is_noticed(course, capsys):
    root = course(PROSE, RESULTS | {"share": 0.9893})
    assert claims.main(["--check"], root) == 1
    said = capsys.readouterr().out
    assert "07_heads, cell 0" in said
    assert "results/heads/share:.1% says '98.9 %'" in said
    assert "    in: The flow head is right in **99.1 %** of scenes, after 12.3 s.\n" in said


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("**99.1 %**", "**98.1 %**"),
        ("**99.1 %**", "**199.1 %**"),
        ("**99.1 %**", "-99.1 %"),
        ("**99.1 %**", "99.1 % of them"),
        ("13.2\nmillion", "13.2 billion"),
        ("From 99", "From 0.99"),
        ("From 99", "From 99 million"),
    ],
)
def test_a_changed_sentence_is_noticed(course, old, new):
    assert old in PROSE
    wrong = [claim for claim in claims.all_claims(course(PROSE.replace(old, new))) if not claim.holds]
    assert len(wrong) == 1


@pytest.mark.parametrize("path", ["heads/accuracy:.1%", "tails/share:.1%", "heads/rows:.1f", "heads/share:q"])
def test_a_path_that_leads_nowhere_is_noticed(course, path):
    (claim,) = claims.all_claims(course(f"The share is 99.1 %<!-- result: {path} -->."))
    assert not claim.holds
    assert "07_heads, cell 0: result" in claim.complaint()


def test_a_comment_that_would_end_its_paragraph_is_noticed(course):
    (claim,) = claims.all_claims(course("The share is 99.1 %\n<!-- result: heads/share:.1% -->."))
    assert not claim.holds
    assert "ends the paragraph" in claim.complaint()


def test_a_unit_may_stand_before_the_comment(course):
    (claim,) = claims.all_claims(course("It took 12.3 s<!-- result: heads/seconds/median:.1f -->."))
    assert claim.holds


def test_an_example_in_code_is_no_claim(course):
    example = "0 %<!-- result: heads/share:.0% -->"
    assert claims.all_claims(course(f"Write `{example}`, or\n\n```markdown\n{example}\n```\n")) == []


def test_claims_on_pages_are_found_too(course):
    root = course(PROSE)
    (root / "book" / "scaling.md").write_text("It is 98 %<!-- result: heads/share:.0% -->.", encoding="utf-8")
    (wrong,) = [claim for claim in claims.all_claims(root) if not claim.holds and claim.where == "scaling.md"]
    assert wrong.right == "99 %"


def test_the_table_shows_each_claim(course, capsys):
    assert claims.main([], course(PROSE.replace("From 99", "From 98"))) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["holds", "holds", "holds", "WRONG"]
    assert rows[0].endswith("heads/share:.1%")


# --- figures that name none ---


@pytest.mark.parametrize(
    "prose",
    [
        "It took 5 s.",
        "It took 5.0 seconds, and found 100 %.",
        "The batch has 2 GB<!-- given -->.",
        "The target is 95 %.",
        "SmolVLA reports 57 % in [its paper](https://arxiv.org/abs/2506.01844).",
        "```\n99 %\n```",
        "Call it with `batch='2 GB'`.",
        "Guess: (a) 20 % (b) 30 %\n(c) 40 %",
        "**Time:** about 20 minutes to read, about 40 seconds to run.",
        "It has 13.2 million<!-- result: heads/rows/kind=flow/weights:.1fM --> weights.",
    ],
)
def test_figures_that_something_stands_behind(course, prose):
    assert claims.problems(course(prose)) == []


@pytest.mark.parametrize(
    ("prose", "figure"),
    [
        ("It took 6 s.", "6 s"),
        ("It took 4.9 s.", "4.9 s"),
        ("It took 5 ms.", "5 ms"),
        ("All of them, 99 %.", "99 %"),
        ("Between 97 and 100 %.", "97 and 100 %"),
        ("It has 13 million weights.", "13 million"),
        ("SmolVLA reports 57 % ([data](data.md)).", "57 %"),
        ("A [link](https://a.org).\n\nAnother paragraph: 57 %.", "57 %"),
        ("| a | 57 % |\n| b | [58 %](https://a.org) |", "57 %"),
        ("- [a](https://a.org): 1 %\n- b: 2 %", "2 %"),
        ("Guess: (a) 20 % (b) 30 %\n\nIt is 30 %.", "30 %"),
    ],
)
def test_figures_that_nothing_stands_behind(course, prose, figure):
    (complaint,) = claims.problems(course(prose))
    assert complaint.startswith(f"07_heads, cell 0: no cell prints {figure!r}")


def test_a_cells_number_counts_as_millions():
    assert claims.is_printed("13.15", "million", [(Decimal(13_152_770), "")])
    assert not claims.is_printed("13.14", "million", [(Decimal(13_152_770), "")])
