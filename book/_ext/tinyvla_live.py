"""The live parts of the book: where they stand, and the files that they load once a reader touches one.

Notable:
- a chapter's notebook knows nothing of them. `PLACES` names the section after which a part stands; a section that is
  not there is a warning, and so fails the strict build;
- the directive `live` puts a part into a page of the book;
- policies (`book/live/*.onnx`, made by `tools/book_policies.py`), onnxruntime-web and measured figures are packed into
  scripts under `_static/live/assets`: gzip in base64, so that a book opened from a folder, without any server, can
  load them, too. Without `node_modules` the book is built all the same, and its pictures stay still;
- the build of onnxruntime-web with WebGPU is twice as large, and base64 would add a third. It is kept as gzip files
  instead. Only a page from a server can fetch those; from a folder, policies run in WebAssembly (`live/runtime.js`).
"""

from __future__ import annotations

import base64
import gzip
import html
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "book" / "live"
RUNTIME = ROOT / "node_modules" / "onnxruntime-web" / "dist"
RESULTS = ("closed_loop_chunks", "learning", "lora")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a live part stands in a chapter."""

    document: str
    section: str
    """The title of the section at whose end it stands."""
    name: str
    title: str
    invitation: str
    """What the part shows, in a sentence; a reader without JavaScript sees this."""
    needs: str = ""
    """The file of `book/live` without which it cannot stand."""

    @property
    def stands(self) -> bool:
        """Whether what it needs was made."""
        return not self.needs or (POLICIES / self.needs).exists()


PLACES = (
    Place(
        "notebooks/01_dataset",
        "Predict, run, explain: labels that are half a cell off",
        "offset",
        "How wrong is a label that misses the middle?",
        "Move the point in the cell at which the label aims, and see by how many degrees each cell's arrow is off.",
    ),
    Place(
        "notebooks/02_vision",
        "3. Positions",
        "patches",
        "Sixty-four patches, sixty-four codes",
        "Choose a patch: where it stands in the sequence, its numbers, and which positions have a code like its own.",
    ),
    Place(
        "notebooks/03_language",
        "1. From words to pieces",
        "wordpiece",
        "Any sentence, in pieces",
        "Type a sentence and see its word pieces and their ids, from the whole vocabulary.",
    ),
    Place(
        "notebooks/04_fusion",
        "7. Cross-attention",
        "fusion",
        "Two fusions, one scene",
        "Drag the blocks: where pool-add points, where cross-attention points, and where cross-attention looks.",
        "pool.onnx",
    ),
    Place(
        "notebooks/05_training",
        "The learning rate: climb, hold, fall",
        "schedule",
        "Shape the schedule",
        "Change the peak, the warm-up and the decay; the curve follows, with what was measured at such a peak.",
    ),
    Place(
        "notebooks/07_action_heads",
        "How many steps?",
        "ambiguity",
        "Two right answers, three heads",
        "Choose a scene with two blocks of the named colour, and follow the flow from noise to its answers.",
    ),
    Place(
        "notebooks/08_closed_loop",
        "6. Chunks: how far ahead to plan, how long to trust the plan",
        "chunks",
        "Plan far, look often?",
        "Choose a chunk's length and how much of it is executed, in a still world or in a current.",
    ),
    Place(
        "notebooks/08_closed_loop",
        "Is it worth it?",
        "world",
        "Push it off its course",
        "Three policies drive the camera; steer against them with the arrow keys, or change the sentence on the way.",
        "cloning.onnx",
    ),
    Place(
        "notebooks/11_lora",
        "Was the full change of low rank?",
        "rank",
        "How much does a rank hold?",
        "Choose a rank: how many weights an update of that rank has, and how much of a matrix it can hold.",
    ),
    Place(
        "notebooks/12_scaling",
        "3. Memory",
        "fit",
        "Will it fit?",
        "Choose a preset, a batch, a precision and recomputation: what a training step keeps in memory.",
    ),
    Place(
        "notebooks/13_robot_arm",
        "8. Does it follow the words?",
        "films",
        "The arm in motion",
        "Choose a sentence and see the trained policy act: success, failure, and where it looks.",
        "films.json",
    ),
)


def mount(name: str, title: str, invitation: str) -> str:
    """Returns the HTML in which a part comes to live."""
    return (
        f'<div class="tv-live" data-live="{name}" role="group" aria-label="{html.escape(title)}">'
        f'<p class="tv-title">{html.escape(title)}</p><p class="tv-invitation">{html.escape(invitation)}</p></div>'
    )


class Live(SphinxDirective):
    """A live part, with the still picture in its content."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Returns the mount around the still picture that `tools/book_policies.py` has drawn."""
        name = self.arguments[0]
        still = (POLICIES / f"{name}.html").read_text(encoding="utf-8")
        self.env.note_dependency(str(POLICIES / f"{name}.html"))
        return [nodes.raw("", still, format="html")]


class LiveParts(SphinxTransform):
    """Puts the parts of `PLACES` into the chapters."""

    default_priority = 100

    def apply(self, **kwargs: Any) -> None:
        """Insert this document's parts."""
        for place in PLACES:
            if place.document == self.env.docname and place.stands:
                self._insert(place)

    def _insert(self, place: Place) -> None:
        for section in self.document.findall(nodes.section):
            if section[0].astext() == place.section:
                inner = next((i for i, child in enumerate(section) if isinstance(child, nodes.section)), len(section))
                html_ = mount(place.name, place.title, place.invitation)
                section.insert(inner, nodes.raw("", html_, format="html"))
                return
        log.warning("no section %r for the live part %r", place.section, place.name, location=self.env.docname)


def code_of(build: str) -> bytes:
    """Returns the gzipped code of a build of onnxruntime-web.

    It asks for its own address, which a script out of memory does not have; nothing is loaded from there.
    """
    code = (RUNTIME / f"{build}.bundle.min.mjs").read_text(encoding="utf-8")
    return gzip.compress(code.replace("import.meta.url", "location.href").encode(), mtime=0)


def assets() -> Iterator[tuple[str, bytes]]:
    """Names and gzipped bytes of everything that parts load."""
    for path in sorted(POLICIES.glob("*.onnx")) + sorted(POLICIES.glob("*.json")):
        yield path.name, gzip.compress(path.read_bytes(), mtime=0)
    for name in RESULTS:
        yield f"{name}.json", gzip.compress((ROOT / "results" / f"{name}.json").read_bytes(), mtime=0)
    yield "vocab.txt", (ROOT / "tinyvla" / "model" / "vocab.txt.gz").read_bytes()
    if not RUNTIME.is_dir():
        log.info("onnxruntime-web is not installed, so policies will not run in the pages: npm install")
        return
    yield "ort.mjs", code_of("ort.wasm")
    yield "ort.wasm", gzip.compress((RUNTIME / "ort-wasm-simd-threaded.wasm").read_bytes(), mtime=0)
    # Two bundles know WebGPU. The other, `ort.webgpu`, needs the "asyncify" binary, which is larger than this one.
    yield "ort.webgpu.mjs.gz", code_of("ort")
    yield "ort.webgpu.wasm.gz", gzip.compress((RUNTIME / "ort-wasm-simd-threaded.jsep.wasm").read_bytes(), mtime=0)


def write_assets(app: Sphinx, error: Exception | None) -> None:
    """Pack what the parts load into the built book."""
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_static" / "live" / "assets"
    folder.mkdir(parents=True, exist_ok=True)
    for name, zipped in assets():
        if name.endswith(".gz"):
            (folder / name).write_bytes(zipped)
            continue
        data = base64.b64encode(zipped).decode()
        (folder / f"{name}.js").write_text(f'TinyVLA.arrived("{name}","{data}")\n', encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_directive("live", Live)
    app.add_transform(LiveParts)
    app.connect("build-finished", write_assets)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
