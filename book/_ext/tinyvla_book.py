"""What the book needs beyond Jupyter Book: measured figures in prose, badges, nothing fetched from outside.

Notable:
- the role `result` writes a figure from `results/*.json` into a sentence, so that prose and file cannot disagree:
  ``{result}`bench_minimal_cpu/seconds/median:.1f` ``; of several rows it takes the one that is described:
  ``{result}`scaling_runs/summary/preset=medium,learning_rate=0.001/seeds` ``;
- a notebook's Colab badge becomes a local picture, with the measured minutes beside it.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxRole

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

from figures import figure, load, row_of

__all__ = ["figure", "load", "row_of"]  # for those who look a path up before they write it into a sentence

COLAB_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


class ResultRole(SphinxRole):
    """Writes a measured figure into a sentence."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Look the figure up; a wrong path is a warning, and so fails the strict build."""
        try:
            text = figure(self.text)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            message = self.inliner.reporter.warning(f"result {self.text!r}: {error!r}", line=self.lineno)
            return [nodes.problematic(self.rawtext, self.text)], [message]
        return [nodes.inline(text, text, classes=["result"])], []


def minutes(seconds: float) -> str:
    """For example "40 s" or "2 min"."""
    return f"{math.ceil(seconds)} s" if seconds < 60 else f"{math.ceil(seconds / 60)} min"


class NotebookHeader(SphinxTransform):
    """The Colab badge from this site, and the measured minutes as badges beside it."""

    default_priority = 100  # before Sphinx collects images

    def apply(self, **kwargs: Any) -> None:
        """Replace the badge in this document, if it has one."""
        times = load("notebook_times")
        name = Path(self.env.docname).name
        for image in list(self.document.findall(nodes.image)):
            if image["uri"] != COLAB_BADGE:
                continue
            image["uri"] = "/book/images/open-in-colab.svg"
            image["classes"].append("badge-image")
            words = self.document.astext()
            read = re.search(r"about (\d+) minutes to read", words)
            badges = [f"{read[1]} min to read"] if read else []
            for device, label in (("cpu", "two CPU cores"), ("cuda", "a GPU")):
                if name in times.get(device, {}):
                    badges.append(f"{minutes(times[device][name])} to run on {label}")
            paragraph = image.parent if isinstance(image.parent, nodes.paragraph) else image.parent.parent
            for badge in badges:
                paragraph += nodes.inline(badge, badge, classes=["time-badge"])


def blank_line_before_lists(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are written to be read in the file: "Notable:" and its list, without the blank line that RST wants."""
    for index in range(len(lines) - 1, 0, -1):
        if lines[index].startswith("- ") and lines[index - 1].endswith(":"):
            lines.insert(index, "")


def clean_page(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Mend what the tools below leave in a page.

    Thebe is not used, and its settings, written twice, are an error in the console; nor are the parts of sphinx-design,
    whose files are larger than all that the live parts of the book add to a page. A list of citations is no list
    to a screen reader, for its items are none; and folded code is called what is written on its fold.
    """
    scripts = context.get("script_files", [])
    thebe = [s for s in scripts if "THEBE" in str(getattr(s, "attributes", {}).get("body")) or "sphinx-thebe" in str(s)]
    unused = ("sphinx-thebe", "design-tabs", "sphinx-design")

    def named(asset: Any) -> str:
        return str(getattr(asset, "filename", asset))

    for kind in ("script_files", "css_files"):
        files = context.get(kind, [])
        context[kind] = [
            each for each in files if each not in thebe and not any(name in named(each) for name in unused)
        ]
    if "body" in context:
        for old, new in (
            ('<div role="list" class="citation-list">', '<div class="citation-list">'),
            ('<summary aria-label="Toggle hidden content">', "<summary>"),
        ):
            context["body"] = context["body"].replace(old, new)


def short_sidebar(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Pages of source code have the logo and the search field at their side, and not the contents of the book again."""
    if pagename.startswith("_modules/"):
        context["sidebars"] = [name for name in context["sidebars"] if name != "sbt-sidebar-nav.html"]


def theme_options(app: Sphinx, config: Any) -> None:
    """Options that Jupyter Book does not pass on: one search field, in the sidebar, is enough; the reader's mode."""
    config.html_context.setdefault("default_mode", "auto")
    config.numfig = False
    config.html_theme_options.update({"navbar_persistent": [], "navigation_with_keys": False})


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_role("result", ResultRole())
    app.add_transform(NotebookHeader)
    app.connect("config-inited", theme_options)
    app.connect("html-page-context", short_sidebar, priority=100)
    app.connect("html-page-context", clean_page, priority=900)
    app.connect("autodoc-process-docstring", blank_line_before_lists)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
