"""The live parts of the book in a real browser: each is changed, and does what PyTorch or a results file says.

The policies run in Chromium as in a reader's browser; `load_compact` reads the same files for PyTorch to answer.
A second Chromium has a WebGPU in software. It is slow, but it loads the same files and must give the same answers.
"""

from __future__ import annotations

import importlib.util
import json
import re
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from book_site import ROOT, requested, show
from browser import SOFTWARE_GPU, require, start_chromium

from tinyvla.act.blocks.world import BlockWorld, WorldConfig
from tinyvla.act.rollout import rollout
from tinyvla.act.world import episode_seeds
from tinyvla.config import PRESETS
from tinyvla.data.dataset import COLORS, PALETTE, cell_centers, render
from tinyvla.deploy.compact import load_compact
from tinyvla.learn.optimizer import learning_rate_at
from tinyvla.model.tokenizer import encode, load_wordpiece
from tinyvla.model.vision import grid_positions
from tinyvla.recipes import TrainConfig
from tinyvla.speed.scaling import budget

LIVE = ROOT / "book" / "live"
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
DEGREES = 0.1
MEGABYTES = 8


def places():
    spec = importlib.util.spec_from_file_location("tinyvla_live", ROOT / "book" / "_ext" / "tinyvla_live.py")
    module = importlib.util.module_from_spec(spec)
    __import__("sys").modules["tinyvla_live"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module.PLACES


PLACES = places()
PAGES = {place.name: place.document for place in PLACES} | {"playground": "index"}
STANDING = {place.name for place in PLACES if place.stands} | {"playground"}


class Part:
    """One live part, awake in a browser."""

    def __init__(self, driver, site: str, name: str) -> None:
        require((ROOT / "node_modules" / "onnxruntime-web").exists(), "onnxruntime-web: npm install")
        self.driver, self.name, self.css = driver, name, f'[data-live="{name}"]'
        driver.set_script_timeout(120)
        requested(driver), driver.get_log("browser")
        driver.get(f"{site}/{PAGES[name]}.html")
        self.before = requested(driver)
        self.run("mount.querySelector('.tv-wake').click()")
        self.until("mount.dataset.awake !== undefined || mount.querySelector('.tv-wake')?.disabled")
        assert self.run("return mount.dataset.awake !== undefined"), self.text

    def run(self, script: str, *arguments):
        return self.driver.execute_script(f"const mount = document.querySelector('{self.css}'); {script}", *arguments)

    def wait_for(self, script: str, *arguments):
        """The value of an `async` piece of script, in which `mount` and `args` are known."""
        code = f"const args = arguments, mount = document.querySelector('{self.css}'), done = args[args.length - 1];"
        code += f"(async () => {{ {script} }})().then(value => done({{value}}), error => done({{error: `${{error}}`}}))"
        answer = self.driver.execute_async_script(code, *arguments)
        assert "error" not in answer, answer
        return answer.get("value")

    def until(self, condition: str, seconds: float = 60):
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {condition}")):
            assert time.monotonic() < end, f"{self.name}: not after {seconds} s: {condition}; {self.text}"
            time.sleep(0.05)
        return value

    @property
    def text(self) -> str:
        return self.run("return mount.textContent")

    @property
    def said(self) -> str:
        """What it tells a reader, and a screen reader."""
        return self.run("return mount.querySelector('.tv-answer').textContent")

    def press(self, label: str, group: str = "") -> None:
        css = f"[aria-label='{group}'] button" if group else "button"
        found = self.run(
            "const b = [...mount.querySelectorAll(arguments[0])].find(b => b.textContent === arguments[1]);"
            "b?.click(); return Boolean(b)",
            css,
            label,
        )
        assert found, f"no button {label!r}"

    def slide(self, label: str, value: float) -> None:
        self.run(
            "const s = [...mount.querySelectorAll('.tv-slider')].find(s => s.firstChild.textContent === arguments[0]);"
            "const i = s.querySelector('input'); i.value = arguments[1]; i.dispatchEvent(new Event('input'))",
            label,
            value,
        )

    def type(self, text: str) -> None:
        """Type a sentence in place of the one that is there."""
        from selenium.webdriver.common.keys import Keys

        box = self.run("return mount.querySelector('input[type=text]')")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(text)

    def key(self, css: str, key: str) -> None:
        """Press a key on the first element."""
        event = "new KeyboardEvent('keydown', {key: arguments[1], bubbles: true})"
        self.run(f"const e = mount.querySelector(arguments[0]); e.focus(); e.dispatchEvent({event})", css, key)

    def drag(self, block: int, x: float, y: float) -> None:
        """Drag a block to pixel (x, y) of its scene with a pointer, in a few steps."""
        from selenium.webdriver import ActionChains

        element = self.run(
            "const b = mount.querySelectorAll('.tv-block')[arguments[0]];"
            "mount.scrollIntoView({block: 'center', behavior: 'instant'}); return b",
            block,
        )
        dx, dy = self.run(
            "const b = arguments[0], svg = b.ownerSVGElement, m = svg.getScreenCTM();"
            "return [(arguments[1] - b.x.baseVal.value - 4) * m.a, (arguments[2] - b.y.baseVal.value - 4) * m.d]",
            element, x, y,
        )  # fmt: skip
        chain = ActionChains(self.driver, duration=30).click_and_hold(element)
        for part in (0.5, 0.5):
            chain.move_by_offset(round(dx * part), round(dy * part))
        chain.release().perform()

    def places_of_blocks(self) -> list[list[float]]:
        return self.run(
            "return [...mount.querySelectorAll('.tv-block')].map(b => [b.x.baseVal.value + 4, b.y.baseVal.value + 4])"
        )

    def check(self, site: str) -> None:
        """Nothing left this machine, nothing was loaded before the first touch, nobody complained."""
        assert not [url for url in self.before if "/live/" in url], "loaded before anybody touched it"
        outside = [u for u in requested(self.driver) if not u.startswith((site, "data:", "blob:", "chrome:", "about:"))]
        assert not outside, outside
        errors = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert not errors, errors


@pytest.fixture
def wake(chromium, site):
    """Opens a page, touches a part of it, and in the end asks the browser for its complaints."""
    opened = []

    def open_part(name: str) -> Part:
        if name not in STANDING:  # its place in the book stays empty, too
            pytest.skip(f"what the part {name} loads is not made yet: tools/book_policies.py, tools/book_films.py")
        show(chromium, "light", 1300)
        opened.append(Part(chromium, site, name))
        return opened[-1]

    yield open_part
    for part in opened:
        part.check(site)


def degrees(a, b) -> float:
    a, b = np.asarray(a, float), np.asarray(b, float)
    return abs(np.degrees(np.arctan2(a[0] * b[1] - a[1] * b[0], a @ b)))


def scenes(count: int, seed: int):
    """Random scenes: blocks anywhere on the grid, as the page and as PyTorch takes them."""
    rng = np.random.RandomState(seed)
    cells = np.stack([rng.permutation(64)[:4] for _ in range(count)])
    colors = np.stack([rng.permutation(6)[:4] for _ in range(count)])
    cells[rng.rand(count) < 0.5, 3] = -1
    blocks = [
        [
            {"x": float(x), "y": float(y), "color": COLORS[c]}
            for (x, y), c, cell in zip(cell_centers(cs), colors[i], cs, strict=True)
            if cell >= 0
        ]
        for i, cs in enumerate(cells)
    ]
    return blocks, render(cells, colors)


ODD = (
    "go to the crimson cube",
    "FIND the {} block!",
    "{}",
    "please find any {} thing, s'il vous plaît",
    "[CLS] block {}",
)


def sentences(count: int, seed: int) -> list[str]:
    """What may be typed: mostly the task's sentence, and also what no training ever showed."""
    rng = np.random.RandomState(seed)
    forms = ("find the {} block",) * 5 + ODD
    return [forms[rng.randint(len(forms))].format(COLORS[rng.randint(6)]) for _ in range(count)]


# --- without a browser ---


def test_the_page_s_colours_are_those_of_the_task():
    text = (ROOT / "book" / "_static" / "live" / "live.js").read_text(encoding="utf-8")
    found = {name: tuple(map(int, rgb.split(", "))) for name, rgb in re.findall(r"(\w+): \[(\d+, \d+, \d+)\]", text)}
    assert found == PALETTE


def test_files_of_parts_are_short_and_every_part_has_one():
    folder = ROOT / "book" / "_static" / "live"
    for path in folder.glob("*.js"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= (200 if path.stem == "live" else 150), path.name
    assert {path.stem for path in folder.glob("*.js")} == {*PAGES, "live", "runtime", "scene", "words"}


def test_every_film_is_there_and_small():
    if "films" not in STANDING:
        pytest.skip("the films are not made yet: python tools/book_films.py")
    films = json.loads((LIVE / "films.json").read_text(encoding="utf-8"))["films"]
    folder = ROOT / "book" / "_static" / "live" / "films"
    assert {each["file"] for each in films} == {path.name for path in folder.iterdir()}
    for success in (True, False):
        shown = {(each["verb"], each["color"]) for each in films if each["success"] == success}
        assert shown == {(verb, color) for verb in ("reach", "pick up") for color in COLORS}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6


def test_positions_and_presets_are_the_package_s():
    codes = json.loads((LIVE / "codes.json").read_text(encoding="utf-8"))["codes"]
    np.testing.assert_allclose(codes, grid_positions((8, 8), 96).numpy(), atol=0.0051)
    assert json.loads((LIVE / "presets.json").read_text(encoding="utf-8")).keys() == PRESETS.keys()


def test_policies_do_what_their_results_file_says():
    results = json.loads((ROOT / "results" / "book_policies.json").read_text(encoding="utf-8"))["parts"]
    assert results["nano"]["direction_accuracy"] > 0.99
    if "world" in STANDING:
        assert results["cloning"]["rollout"]["success"] < results["dagger"]["rollout"]["success"]
    for name in {"nano", "pool", "cloning", "dagger"} & set(results):
        assert (LIVE / f"{name}.onnx").stat().st_size == results[name]["bytes"]


# --- weight ---


def size_of(book: Path, urls: set[str], site: str) -> int:
    return sum(
        (book / url.removeprefix(site + "/").split("?")[0]).stat().st_size for url in urls if url.startswith(site)
    )


def test_the_first_page_stays_light_until_it_is_touched(book, wake, site):
    part = wake("playground")
    loaded = requested(part.driver)
    live = {url for url in loaded if "/live/" in url}
    assert 5e6 < size_of(book, live, site) <= MEGABYTES * 1e6
    # What a page carries for its live parts is less than the unused files of sphinx-design that it carried before.
    html_ = (book / "index.html").read_text(encoding="utf-8")
    mount = re.search(r'<div class="tv-live.*?</svg></div>', html_, re.S)[0]
    unused = sum((book / "_static" / name).stat().st_size for name in ("sphinx-design.min.css", "design-tabs.js"))
    assert len(mount) + sum((book / "_static" / f"course.{kind}").stat().st_size for kind in ("css", "js")) < unused
    assert "sphinx-design" not in html_
    assert "design-tabs" not in html_


# --- the policy ---


def arrow_for(part: Part, policy, text: str) -> str:
    """Types a sentence, compares the answer with PyTorch's, and returns the tip of the arrow."""
    part.type(text)
    part.until(f"mount.answer?.text === '{text}'")
    answer = part.run("return mount.answer")
    blocks = answer["blocks"]
    cells = np.array([[int(b["y"] // 8 * 8 + b["x"] // 8) for b in blocks]])
    image = render(cells, np.array([[COLORS.index(b["color"]) for b in blocks]]))[0]
    assert answer["ids"] == encode([text])[0][0].tolist()
    assert degrees(answer["action"], policy.predict(image, text)) < DEGREES
    # What is drawn is the answer: the tip of the magenta arrow.
    tip = part.run("return mount.querySelector('polygon[fill=\"#c2185b\"]').getAttribute('points').split(' ')[0]")
    np.testing.assert_allclose([float(v) for v in tip.split(",")], 32 + 26 * np.array(answer["action"]), atol=1e-3)
    return tip


def test_a_typed_sentence_turns_the_arrow_to_what_pytorch_says(wake):
    part, policy = wake("playground"), load_compact(LIVE / "nano.onnx")
    seen = {arrow_for(part, policy, f"find the {color} block") for color in COLORS}
    assert len(seen) == len(COLORS)
    shown = part.run("return [...mount.querySelectorAll('.tv-tokens li')].map(li => li.textContent)")
    assert shown == ["[CLS] 101", "find 2424", "the 1996", "orange 4589", "block 3796", "[SEP] 102"]


def compare_with_pytorch(part: Part, count: int) -> None:
    """Asks the page about random scenes and sentences, and PyTorch."""
    policy = load_compact(LIVE / "nano.onnx")
    blocks, images = scenes(count, seed=7)
    texts = sentences(count, seed=7)
    found = part.wait_for(
        """
        const [blocks, texts] = args, ask = await TinyVLA.policy("nano"), tokenizer = await TinyVLA.tokenizer();
        const all = [];
        for (let i = 0; i < texts.length; i++) {
          const { action, attention } = await ask(TinyVLA.paint(blocks[i]), tokenizer.encode(texts[i]));
          all.push([action, attention.reduce((a, b) => a + b)]);
        }
        return all;
        """,
        blocks,
        texts,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # words that were never seen
        expected = policy.predict(images, texts)
    off = [degrees(action, right) for (action, _), right in zip(found, expected.tolist(), strict=True)]
    assert max(off) < DEGREES
    assert np.abs(np.array([action for action, _ in found]) - expected.numpy()).max() < 1e-4
    assert all(0 < share <= 1 for _, share in found)


def test_two_hundred_scenes_and_sentences_have_pytorch_s_answer(wake):
    compare_with_pytorch(wake("playground"), 200)


def test_dragging_and_keys_move_a_block_and_the_arrow_follows(wake):
    part = wake("playground")
    color = part.run("return mount.answer.blocks[0].color")
    part.press(color, "the colour in the instruction")
    part.until(f"mount.answer.text === 'find the {color} block'")
    before = part.run("return mount.answer.action")
    part.drag(0, 60, 60)
    part.until("mount.answer.blocks[0].x === 60 && mount.answer.blocks[0].y === 60")
    after = part.run("return mount.answer.action")
    assert degrees(before, after) > 5
    assert degrees(after, [1, 1]) < 15
    part.key(".tv-block", "ArrowLeft")
    part.until("mount.answer.blocks[0].x === 52")
    assert "row 8, column 7" in part.run("return mount.querySelector('[role=status]').textContent")
    count = len(part.places_of_blocks())
    part.key(".tv-block", "Delete")
    part.until(f"mount.answer.blocks.length === {count - 1}")
    part.press(color, "blocks in the scene")
    part.until(f"mount.answer.blocks.length === {count}")


def test_word_pieces_are_those_of_the_package(wake):
    part = wake("wordpiece")
    texts = [
        "find the red block", "Find the ULTRAMARINE block!", "s'il te plaît, Étagère № 42", "go 🤖 go", "東京 tower",
        "a\tb\n c", "antidisestablishmentarianism", "x" * 101, "x" * 100, "don't-stop... now?", "[SEP] [mask] [MASK]",
        "ﬁnd naïve ½ Ω", "“quoted” — dash", "e\u0301 combining", "soft\u00adhyphen zero\u200bwidth", "İstanbul ß ǅ",
        "हिन्दी العربية ไทย", "$5 + 3 = 8 ^_^ `code` ~ | <b>",
    ]  # fmt: skip
    found = part.wait_for("const t = await TinyVLA.tokenizer(); return args[0].map(t.encode)", texts)
    assert found == [load_wordpiece().encode(text).ids for text in texts]
    part.press("antidisestablishmentarianism", "sentences to try")
    pieces = load_wordpiece().encode("antidisestablishmentarianism").tokens
    shown = part.run("return [...mount.querySelectorAll('.tv-tokens b')].map(b => b.textContent)")
    assert shown == pieces
    assert f"{len(pieces)} tokens" in part.said


# --- what it runs on ---

BUILDS = {"webgpu": {"ort.webgpu.mjs.gz", "ort.webgpu.wasm.gz"}, "wasm": {"ort.mjs.js", "ort.wasm.js"}}
BROKEN = {
    "its file is missing": "const ask = fetch; fetch = (url, ...more) => "
    "ask(`${url}`.replace('gpu.wasm', 'gpu.missing'), ...more)",
    "its file is broken": "const ask = fetch; fetch = async (url, ...more) => "
    "/gpu.wasm/.test(url) ? new Response(new Uint8Array([31, 139, 8, 0, 1, 2, 3])) : ask(url, ...more)",
    "it gives no device": "GPUAdapter.prototype.requestDevice = async () => { throw new Error('lost') }",
    "its first run fails": "GPUQueue.prototype.submit = () => { throw new Error('lost') }",
    "it cannot run programs": "const make = GPUDevice.prototype.createShaderModule;"
    "GPUDevice.prototype.createShaderModule = function () { return make.call(this, {code: 'nonsense'}) }",
}
"""Scripts that break WebGPU before a page loads."""


@pytest.fixture(scope="module")
def chromium_with_gpu(tmp_path_factory, site):
    driver = start_chromium(tmp_path_factory.mktemp("gpu"), ("browser", "performance"), SOFTWARE_GPU)
    driver.get(f"{site}/search.html")
    ask = "navigator.gpu.requestAdapter().then(adapter => arguments[0](Boolean(adapter)), () => arguments[0](false))"
    require(driver.execute_async_script(ask), "a Chromium with SwiftShader, for WebGPU in software")
    show(driver, "light", 1300)
    yield driver
    driver.quit()


@contextmanager
def before_each_page(driver, script: str):
    """Run a script in each page that is opened, before the page's own."""
    added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": f"{{ {script} }}"})
    yield
    driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def builds_of(urls: set[str]) -> set[str]:
    """Files of the runtime among some addresses."""
    return {url.rsplit("/", 1)[1] for url in urls if "/assets/ort." in url}


def test_without_webgpu_nothing_of_it_is_loaded(wake):
    part = wake("playground")
    assert builds_of(requested(part.driver)) == BUILDS["wasm"]
    assert "Runs in your browser: WebAssembly." in part.text


def test_with_webgpu_the_arrow_is_pytorch_s_and_only_its_build_is_loaded(book, chromium_with_gpu, site):
    part = Part(chromium_with_gpu, site, "playground")
    part.run("TinyVLA.device.slow = Infinity")  # keep this GPU, which is slow
    loaded = requested(part.driver)
    assert builds_of(loaded) == BUILDS["webgpu"]
    assert size_of(book, {url for url in loaded if "/live/" in url}, site) <= MEGABYTES * 1e6
    arrow_for(part, load_compact(LIVE / "nano.onnx"), "find the red block")
    compare_with_pytorch(part, 6)
    assert "Runs in your browser: WebGPU." in part.text
    assert not builds_of(requested(part.driver))
    part.check(site)


def test_a_slow_gpu_is_left_without_another_download(chromium_with_gpu, site):
    part = Part(chromium_with_gpu, site, "playground")
    assert builds_of(requested(part.driver)) == BUILDS["webgpu"]
    assert part.run("return TinyVLA.device.provider") == "webgpu"
    part.run("Object.assign(TinyVLA.device, {answers: 5, late: 4, slow: 0})")
    part.press("New scene")
    part.until("TinyVLA.device.provider === 'wasm'")
    assert "Runs in your browser: WebAssembly." in part.text
    compare_with_pytorch(part, 50)
    assert not builds_of(requested(part.driver))
    part.check(site)


@pytest.mark.parametrize("how", BROKEN)
def test_a_webgpu_that_fails_gives_way_to_webassembly(chromium_with_gpu, site, how):
    with before_each_page(chromium_with_gpu, BROKEN[how]):
        part = Part(chromium_with_gpu, site, "playground")
    assert "Runs in your browser: WebAssembly." in part.text
    assert builds_of(requested(part.driver)) >= BUILDS["wasm"] | {"ort.webgpu.mjs.gz"}
    arrow_for(part, load_compact(LIVE / "nano.onnx"), "find the red block")
    compare_with_pytorch(part, 20)


# --- the world ---


@pytest.mark.parametrize("name", ["cloning", "dagger"])
def test_the_closed_loop_succeeds_as_often_as_a_rollout(wake, name):
    part, policy = wake("world"), load_compact(LIVE / f"{name}.onnx")
    seeds = episode_seeds(100, seed=44)
    world = BlockWorld(seeds)
    rules = part.run("return TinyVLA.parts.world.RULES")
    config = WorldConfig()
    named = (config.step_size, config.tolerance, config.stop_norm, config.max_steps)
    assert tuple(rules[key] for key in ("step", "tolerance", "stop", "max")) == named
    given = [
        {
            "blocks": [
                {"x": float(x), "y": float(y), "color": COLORS[c]}
                for (x, y), c in zip(world.centers[i], world.colors[i], strict=True)
                if c >= 0
            ],
            "target": COLORS[world.colors[i, 0]],
        }
        for i in range(len(seeds))
    ]
    found = part.wait_for(
        """
        const [worlds, name] = args, ask = await TinyVLA.policy(name), tokenizer = await TinyVLA.tokenizer(), all = [];
        for (const world of worlds)
          all.push(await TinyVLA.parts.world.episode(world, ask, tokenizer.encode(`find the ${world.target} block`)));
        return all;
        """,
        given,
        name,
    )
    expected = rollout(policy, world).success
    assert np.sum(found != expected) <= 1, "rounding may turn an episode; more is another world"


def test_a_push_and_another_sentence_change_the_course(wake):
    part = wake("world")
    part.press("DAgger", "who drives")
    part.run(  # a world of our own, in which the camera sees both blocks from anywhere on its way
        "const {world, begin} = mount.world; world.target = 'red';"
        "begin([{color: 'red', x: 76, y: 60}, {color: 'blue', x: 60, y: 80}])"
    )
    part.press("Go")
    part.until("mount.dataset.ended === 'success'", 60)
    steps = int(part.run("return mount.dataset.steps"))
    assert "It stopped on it" in part.said
    part.key("[role=application]", "ArrowLeft")
    assert float(part.run("return mount.dataset.distance")) > 3
    assert "Pushed left" in part.run("return mount.querySelector('[role=status]').textContent")
    part.press("One step")
    part.until(f"mount.dataset.steps === '{steps + 1}'")
    part.press("blue", "the colour in the instruction")
    part.press("Go")
    part.until("mount.dataset.ended === 'success'", 60)
    assert part.run("return mount.world.world.target") == "blue"


# --- explorables ---


def test_a_label_that_aims_at_the_corner_is_up_to_45_degrees_off(wake):
    part = wake("offset")
    assert "45.0° at most" in part.said
    assert "1 label has no length" in part.said
    part.slide("the label aims at", 4)
    assert "0.0° on average, 0.0° at most" in part.said
    part.slide("the label aims at", 0)
    first = part.said
    part.drag(0, 36, 36)
    assert part.said != first
    assert "This cell: the label has no length" in part.said


def test_patches_that_look_alike_have_different_codes(wake):
    part = wake("patches")
    part.slide("patch", 63)
    assert "row 8, column 8" in part.said
    same = int(re.search(r"(\d+) other patches", part.said)[1])
    blocks = {tuple(place) for place in part.places_of_blocks()}
    assert same == (0 if (60, 60) in blocks else 59)
    part.press("position codes", "what is compared")
    assert "No other patch" in part.said
    blue = "[...mount.querySelectorAll('rect[fill=\"#2a78b5\"]')]"
    shades = part.run(f"return {blue}.map(rect => +rect.getAttribute('fill-opacity'))")
    assert int(np.argmax(shades)) == 63
    assert shades[62] > shades[56] > 0.05


def test_two_fusions_answer_as_pytorch_does_while_a_block_moves(wake):
    part = wake("fusion")
    policies = [load_compact(LIVE / f"{name}.onnx") for name in ("pool", "nano")]
    part.run("mount.first = JSON.stringify(mount.answer)")
    corners = [[4, 60], [60, 4], [60, 60], [4, 4], [28, 4]]
    part.drag(0, *next(corner for corner in corners if corner not in part.places_of_blocks()))
    part.until("JSON.stringify(mount.answer) !== mount.first")
    time.sleep(0.5)  # the last answer of the drag
    places = part.places_of_blocks()
    fills = part.run("return [...mount.querySelectorAll('.tv-block')].map(block => block.getAttribute('fill'))")
    colors = [list(PALETTE.values()).index(tuple(map(int, re.findall(r"\d+", fill)))) for fill in fills]
    image = render(np.array([[int(y // 8 * 8 + x // 8) for x, y in places]]), np.array([colors]))[0]
    text = re.search(r"find the \w+ block", part.said)[0]
    for policy, action in zip(policies, part.run("return mount.answer"), strict=True):
        assert degrees(action, policy.predict(image, text)) < DEGREES


def test_the_schedule_is_the_package_s(wake):
    part = wake("schedule")
    for total, peak, warmup, decay in ((500, 3e-4, 100, 0.5), (125, 1e-3, 300, 1.0), (2500, 1e-4, 0, 0.0)):
        config = TrainConfig(learning_rate=peak, warmup_steps=warmup, decay_fraction=decay)
        steps = [0, 1, total // 5, total // 2, total - 1]
        found = part.run(
            "return arguments[0].map(step => TinyVLA.parts.schedule.rateAt(step, arguments[1], arguments[2]))",
            steps, total, {"peak": peak, "warmup": warmup, "decay": decay},
        )  # fmt: skip
        np.testing.assert_allclose(found, [learning_rate_at(step, total, config) for step in steps], rtol=1e-9)
    learned = json.loads((ROOT / "results" / "learning.json").read_text(encoding="utf-8"))["reach"]["nano 0.001"]
    curve = part.run("return mount.querySelector('polyline').getAttribute('points')")
    part.press("peak 0.001", "peak")
    assert f"after {learned['steps']['median']} steps" in part.said
    assert part.run("return mount.querySelector('polyline').getAttribute('points')") != curve
    part.slide("look at", 1)
    assert "e-6" in part.said


def test_regression_averages_and_bins_and_flow_choose(wake):
    part = wake("ambiguity")
    part.drag(0, 60, 28)  # far apart: right and left of the middle
    part.until("mount.near > 0.8")
    part.press("bins", "head")
    part.until("mount.answers.length === 60 && mount.textContent.includes('draws of the bins')")
    assert part.run("return mount.near") > 0.8
    part.press("regression", "head")
    part.until("mount.answers.length === 1")
    right = np.array([[28, -4], [-20, 4]]) / [[np.hypot(28, 4)], [np.hypot(20, 4)]]
    assert np.linalg.norm(np.array(part.run("return mount.mean")) - right.mean(axis=0)) < 0.25
    part.press("flow", "head")
    part.press("1 step", "steps of the flow")
    part.until("mount.answers.length === 60 && mount.near < 0.3")  # one step is regression
    part.press("10 steps", "steps of the flow")
    part.until("mount.near > 0.8")
    part.slide("moment of the flow", 0)
    part.until("mount.near < 0.5")  # noise


def test_chunks_say_what_was_measured(wake):
    part = wake("chunks")
    results = json.loads((ROOT / "results" / "closed_loop_chunks.json").read_text(encoding="utf-8"))
    worlds = {"exact": "still world", "drifting": f"current of {results['drift']} px a step"}
    for head, world in (("flow", "exact"), ("regression", "drifting")):
        part.press(head, "head")
        part.press(worlds[world], "world")
        part.press("chunk of 16", "chunk length")
        part.press("execute 4", "actions executed")
        wanted = {"head": head, "world": world, "horizon": 16, "execute": 4}
        (run,) = (run for run in results["runs"] if wanted.items() <= run.items())
        assert f"success {100 * run['success']['median']:.1f} %" in part.said
        assert f"{run['mean_looks']['median']:.1f} looks" in part.said
    part.press("chunk of 2", "chunk length")
    assert "2 executed" in part.said  # no more than the chunk holds


def test_a_rank_holds_what_its_singular_values_say(wake):
    part = wake("rank")
    data = json.loads((LIVE / "rank.json").read_text(encoding="utf-8"))
    shares = {}
    for label, kind in (("the full change of chapter 11", "change"), ("a random matrix", "random")):
        part.press(label, "matrix")
        part.slide("rank", 8)
        energy = np.square(data[kind]["values"])
        shares[kind] = part.run("return mount.share")
        assert shares[kind] == pytest.approx(energy[:8].sum() / energy.sum(), abs=1e-3)
    assert shares["change"] > shares["random"] + 0.1
    picture = "return mount.querySelector('canvas').toDataURL()"
    before = part.run(picture)
    part.slide("rank", 1)
    assert part.run(picture) != before
    assert "Rank 1 of" in part.said


WAYS = ((64, False, 1, False), (256, True, 4, False), (8, True, 1, True), (512, False, 2, True))
"""Batch, bfloat16, parts, recomputation."""


def test_what_fits_is_what_the_package_says(wake):
    part = wake("fit")
    shapes = json.loads((LIVE / "presets.json").read_text(encoding="utf-8"))
    for name, config in PRESETS.items():
        for way in WAYS:
            found = part.run(
                "const {budget, memory} = TinyVLA.parts.fit, parts = budget(arguments[0], arguments[1]);"
                "return [parts.parameters, memory(parts)]",
                shapes[name],
                dict(zip(("batch", "bfloat16", "accumulate", "recompute"), way, strict=True)),
            )
            right = budget(config, *way)
            np.testing.assert_allclose(found, [right.parameters, right.memory], rtol=1e-12)
    assert "fits" in part.said
    part.press("smolvla_like", "preset")
    part.press("4 GB", "memory of the device")
    assert "does not fit" in part.said
    assert part.run("return mount.bytes") == pytest.approx(budget(PRESETS["smolvla_like"], 64).memory)


def test_a_film_is_chosen_by_its_sentence(wake):
    part = wake("films")
    films = json.loads((LIVE / "films.json").read_text(encoding="utf-8"))["films"]
    for wanted in (films[0], films[-1]):
        part.press(wanted["verb"], "verb"), part.press(wanted["color"], "colour")
        part.press("success" if wanted["success"] else "failure", "outcome")
        assert part.run("return mount.dataset.film") == wanted["file"]
        played = "const frame = +mount.dataset.frame, said = mount.querySelector('output').textContent;"
        part.until(f"(() => {{ {played} return frame > 0 && said === `step ${{frame}}` }})()", 20)
        part.slide("moment", wanted["frames"] - 1)
        assert f"“{wanted['sentence']}”, step {wanted['frames'] - 1}" in part.said
        assert ("success" in part.said) == wanted["success"]
        width = part.wait_for(
            "const i = new Image(); i.src = mount.querySelector('.tv-strip').style.backgroundImage.slice(5, -2);"
            "await i.decode(); return i.naturalWidth"
        )
        assert width > 1000


# --- for everybody ---


AXE_RUN = """
    const [css, done] = arguments;
    axe.run(document.querySelector(css), {resultTypes: ['violations']}).then(result => done(result.violations
      .filter(v => ['serious', 'critical'].includes(v.impact))
      .map(v => `${v.id}: ${v.nodes.slice(0, 3).map(n => n.target + ' ' + n.html.slice(0, 160)).join(' || ')}`)));
"""


@pytest.mark.parametrize("name", PAGES)
def test_an_awake_part_is_accessible_in_light_and_dark_and_on_a_phone(wake, name):
    require(AXE.exists(), "axe-core: npm install")
    part = wake(name)
    part.driver.execute_script(AXE.read_text(encoding="utf-8"))
    found = {}
    for theme, width in (("light", 1300), ("dark", 1300), ("light", 375)):
        show(part.driver, theme, width)
        found[f"{theme} {width}"] = part.driver.execute_async_script(AXE_RUN, part.css)
        wide = part.run("return mount.scrollWidth - mount.clientWidth")
        assert wide <= 1, f"{name} is {wide} px too wide at {width} px"
    show(part.driver, "light", 1300)
    assert not any(found.values()), json.dumps(found, indent=1)
    assert part.run("return mount.querySelector('[role=status]') !== null")


@pytest.mark.parametrize("browser", ["chromium", "chromium_with_gpu"])
def test_a_book_opened_from_a_folder_is_alive_too(book, browser, request):
    require((ROOT / "node_modules" / "onnxruntime-web").exists(), "onnxruntime-web: npm install")
    chromium = request.getfixturevalue(browser)
    chromium.get((book / "index.html").as_uri())
    chromium.execute_script("document.querySelector('.tv-wake').click()")
    end = time.monotonic() + 60
    while not chromium.execute_script("return document.querySelector('[data-live]').dataset.awake !== undefined"):
        assert time.monotonic() < end, chromium.execute_script(
            "return document.querySelector('[data-live]').textContent"
        )
        time.sleep(0.1)
    end = time.monotonic() + 60
    while not (answer := chromium.execute_script("return document.querySelector('[data-live]').answer")):
        assert time.monotonic() < end, "awake, and it answers nothing"
        time.sleep(0.1)
    assert len(answer["action"]) == 2
    assert "Runs in your browser: WebAssembly." in chromium.execute_script("return document.body.textContent")
