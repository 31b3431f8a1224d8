"""Measured figures in prose, held against what measured them.

python tools/claims.py           # every claim that names its results file, and what the file says
python tools/claims.py --check   # only what is wrong; exit with 1 if anything is

Notable:
- in a notebook, or where a page cannot use the role `result`, a figure is followed by a comment that no reader sees:
  ``99.1 %<!-- result: heads/summary/kind=flow/median:.1% -->``. What stands right before it must be what the file says;
  the path's grammar is that of `figures.figure`;
- a share, a time or an amount in a notebook's prose is printed by a cell of that notebook, or carries such a comment,
  or stands in a paragraph that links to where others report it, or is a choice and no measurement:
  ``a batch of 2 GB<!-- given -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import jupytext
import nbformat
from figures import ROOT, figure

COMMENT = re.compile(r"<!--\s*result:\s*(?P<path>.*?)\s*-->", re.S)
CODE = re.compile(r"(?ms)^[ ]*(```+|~~~+).*?^[ ]*\1[ ]*$|`[^`\n]*`")
UNIT = r"(?:%|(?:seconds?|s|ms|milliseconds?|GB|GiB|MB|million|billion)\b)"
PLAIN_UNIT = re.compile(r"\s?(?:seconds?|s|minutes?|min|ms|milliseconds?|GB|GiB|MB|degrees|pixels|steps|runs)$")
NUMBER = r"(?<![\w.,-])-?\d+(?:[.,]\d+)*"
FIGURE = re.compile(
    rf"(?P<first>{NUMBER})(?:\s(?:to|and|or)\s|\s?[-–]\s?)(?P<last>\d+(?:[.,]\d+)*)\s?(?P<range_unit>{UNIT})"
    rf"|(?P<number>{NUMBER})\s?(?P<unit>{UNIT})"
)
BACKED = re.compile(r"[*_)\s]*<!--\s*(?:result:|given)")
EXTERNAL_LINK = re.compile(r"\]\(https?://|<https?://")
TARGET = "95"  # per cent: the course's target, not a measurement


@dataclass(frozen=True)
class Text:
    """A piece of Markdown, and where it stands: for example "03_language, cell 12"."""

    where: str
    source: str


@dataclass(frozen=True)
class Claim:
    """A figure in prose that names its results file."""

    where: str
    sentence: str
    path: str
    before: str
    right: str  # what the file says
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether the text before the comment ends with what the file says; a unit may follow that."""
        before = self.before if self.before.endswith(self.right) else PLAIN_UNIT.sub("", self.before)
        if self.error or not before.endswith(self.right):
            return False
        rest = before.removesuffix(self.right)
        return not re.search(r"(?:\d[.,]?|(?:^|\s)[-−])$", rest)

    def complaint(self) -> str:
        """What is wrong, for a person who is to mend it."""
        wrong = self.error or f"results/{self.path} says {self.right!r}, the text {self.before[-24:]!r}"
        return f"{self.where}: {wrong}\n    in: {self.sentence}"


def texts_of(path: Path) -> Iterator[Text]:
    """The Markdown cells of a notebook, from the source that people edit; cells are counted from 0."""
    for number, cell in enumerate(jupytext.read(path).cells):
        if cell.cell_type == "markdown":
            yield Text(f"{path.stem}, cell {number}", cell.source)


def page_texts(root: Path) -> Iterator[Text]:
    """The book's pages and the README."""
    for path in sorted([*root.glob("*.md"), *(root / "book").glob("*.md")]):
        yield Text(path.name, path.read_text(encoding="utf-8"))


def in_one_line(text: str) -> str:
    """Without comments and line breaks."""
    return re.sub(r"\s+", " ", re.sub(r"<!--.*?-->", "", text, flags=re.S)).strip()


def sentence_at(text: str, start: int) -> str:
    """The sentence, on one line, in which a position lies."""
    masked = re.sub(r"<!--.*?-->", lambda comment: "_" * len(comment[0]), text, flags=re.S)
    ends = [match.end() for match in re.finditer(r"[.!?](?:\*\*)?\s+(?=\S)|\n\s*\n", masked)]
    begin = max((end for end in ends if end <= start), default=0)
    end = min((end for end in ends if end > start), default=len(text))
    return in_one_line(text[begin:end])


def claims_in(text: Text, results: Path) -> Iterator[Claim]:
    """Every comment of a text that names a results file, looked up."""
    code = [found.span() for found in CODE.finditer(text.source)]
    for match in COMMENT.finditer(text.source):
        if any(start < match.start() < end for start, end in code):
            continue
        before = re.sub(r"\s+", " ", text.source[: match.start()]).rstrip("*_`")
        right, error = "", ""
        try:
            right = figure(match["path"], results)
        except (KeyError, IndexError, ValueError, TypeError) as problem:
            error = f"result {match['path']!r}: {problem!r}"
        if not text.source[: match.start()].rpartition("\n")[2].strip():
            error = error or "a line that begins with a comment ends the paragraph: put it right behind its figure"
        yield Claim(text.where, sentence_at(text.source, match.start()), match["path"], before[-80:], right, error)


def all_claims(root: Path = ROOT) -> list[Claim]:
    """The claims of the notebooks and of the book's pages."""
    notebooks = (text for path in sorted((root / "notebooks").glob("*.py")) for text in texts_of(path))
    texts = [*notebooks, *page_texts(root)]
    return [claim for text in texts for claim in claims_in(text, root / "results")]


# --- figures that name no file ---


def prose_of(source: str) -> str:
    """Markdown without code, pictures, formulas, options to guess from, and a chapter's own times.

    The times in a chapter's header are compared with their file by `tools/notebooks.py`.
    """
    text = CODE.sub("`…`", source)
    text = re.sub(r"(?m)^\*\*Time:\*\*.*(?:\n(?!\s*$).*)*", "", text)
    text = re.sub(r"`[^`]*`|\$\$.*?\$\$|\$[^$\n]+\$", "`…`", text, flags=re.S)
    text = re.sub(r"(?s)\(a\).*?\(b\).*?(?=\n\s*\n|\n\s*(?:\d+\.|-)\s|\Z)", "", text)
    return re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)


def paragraphs_of(text: str) -> Iterator[str]:
    """Paragraphs, the rows of tables, and the items of lists."""
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.lstrip().startswith("|"):
            yield from paragraph.splitlines()
        else:
            yield from re.split(r"\n(?=\s*(?:[-*]|\d+\.)\s)", paragraph)


def decimal(number: str) -> Decimal:
    """A number as it is written in prose or by a cell: "13,152,770" or "0.02"."""
    return Decimal(re.sub(r",(?=\d{3})", "", number).replace(",", "."))


def printed_by(path: Path) -> list[tuple[Decimal, str]]:
    """The numbers in a notebook's stored outputs, each with the word that follows it."""
    texts = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/plain", "")]
    numbers = re.findall(r"(?<![\w.])(-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?)[ ]?(%|[A-Za-z]+)?", "\n".join(texts))
    return [(Decimal(number.replace(",", "")), word) for number, word in numbers]


SAME_UNIT = {"seconds": "s", "second": "s", "milliseconds": "ms", "millisecond": "ms"}
COUNTED = {"million": Decimal(1_000_000), "billion": Decimal(1_000_000_000)}


def is_printed(number: str, unit: str, printed: list[tuple[Decimal, str]]) -> bool:
    """Whether a cell printed this figure: with its unit, a share also as 0.45, millions also as 13,152,770.

    It is rounded as in the prose.
    """
    wanted, unit = decimal(number), SAME_UNIT.get(unit, unit)
    last = Decimal(1).scaleb(wanted.as_tuple().exponent)
    exact = [value for value, word in printed if SAME_UNIT.get(word, word) == unit]
    counts = [value / COUNTED[unit] for value, _ in printed if value > 100_000] if unit in COUNTED else []
    shares = [100 * value for value, _ in printed if 0 < value < 1 and value.as_tuple().exponent <= -2]  # type: ignore[operator]
    return any(value.quantize(last) == wanted for value in exact + counts + shares * (unit == "%"))


def unbacked_in(text: Text, printed: list[tuple[Decimal, str]]) -> Iterator[str]:
    """Complaints about the shares, times and amounts of a text that nothing stands behind."""
    for paragraph in paragraphs_of(prose_of(text.source)):
        if EXTERNAL_LINK.search(paragraph):
            continue
        for match in FIGURE.finditer(paragraph):
            unit = match["unit"] or match["range_unit"]
            numbers = [match["number"]] if match["number"] else [match["first"], match["last"]]
            if BACKED.match(paragraph, match.end()) or (numbers[-1], unit) == (TARGET, "%"):
                continue
            if not all(is_printed(number, unit, printed) for number in numbers):
                yield (
                    f"{text.where}: no cell prints {in_one_line(match[0])!r}, and it names no results file\n"
                    f"    in: {sentence_at(paragraph, match.start())}"
                )


def unbacked(folder: Path) -> Iterator[str]:
    """Complaints about the prose of a folder's notebooks."""
    for path in sorted(folder.glob("*.py")):
        printed = printed_by(path.with_suffix(".ipynb"))
        for text in texts_of(path):
            yield from unbacked_in(text, printed)


def problems(root: Path = ROOT) -> list[str]:
    """All that is wrong, one complaint each."""
    return [claim.complaint() for claim in all_claims(root) if not claim.holds] + [*unbacked(root / "notebooks")]


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Returns the exit code."""
    if "--check" in arguments:
        found = problems(root)
        print("\n".join(found) or "every figure in prose is what its source says")
        return int(bool(found))
    for claim in all_claims(root):
        verdict = "holds" if claim.holds else "WRONG"
        print(f"{verdict}  {claim.where:28} {claim.right or 'nothing':>16}  {claim.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
