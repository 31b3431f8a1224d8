"""Every command that README, book and chapters print: TinyVLA's are parsed, LeRobot's held against its own options.

Where commands follow each other in one block and the first of them train, later ones take checkpoints that these make.
"""

from __future__ import annotations

import inspect
import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import jupytext
import pytest

from tinyvla.app import cli
from tinyvla.errors import InputError
from tinyvla.learn.folder import BEST

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("*.py"))
PAGES = [
    ROOT / "README.md",
    ROOT / "index.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "book").glob("*.md")),
    *CHAPTERS,
]
FLAGS = json.loads((Path(__file__).parent / "plugin/lerobot_flags.json").read_text(encoding="utf-8"))
PROGRAMS = ("tinyvla", "lerobot-", "tinyvla-lerobot", "python -m lerobot")


def text_of(page: Path) -> str:
    """A page's Markdown; of a chapter that of its cells."""
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in jupytext.read(page).cells if cell.cell_type == "markdown")


def commands_in(lines: list[str]) -> list[str]:
    """The commands in some lines of shell, without comments, variables and what launches a module."""
    found = []
    for line in lines:
        for part in re.split(r"&&|;|\|(?!\w)", re.sub(r"\s#.*", "", line)):
            words = re.sub(r"^(\w+=\S+ )+", "", part.strip())  # variables that stand before a command
            words = re.sub(r"^(?:accelerate launch|torchrun|python)\b.* -m tinyvla ", "tinyvla ", words)
            found.append(words.removeprefix(".venv/bin/"))
    return [words for words in found if words.startswith(PROGRAMS)]


def sequences(page: Path) -> list[list[str]]:
    """The commands of each of a page's shell blocks, continuations joined."""
    blocks = re.findall(r"^([ ]*)```(?:bash|sh|shell|console)\n(.*?)^\1```", text_of(page), re.M | re.S)
    return [commands_in(block.replace("\\\n", " ").splitlines()) for _, block in blocks]


def commands(page: Path) -> list[str]:
    """The commands in a page's shell blocks, and TinyVLA's between backticks."""
    inline = re.findall(r"`(tinyvla [a-z]+ [^`]*?)`", text_of(page).replace("\n", " "))
    return [command for block in sequences(page) for command in block] + commands_in(inline)


def printed(*prefixes: str) -> list:
    return [
        pytest.param(command, id=f"{page.name}: {command[:60]}")
        for page in PAGES
        for command in dict.fromkeys(commands(page))
        if command.startswith(prefixes) and "..." not in command
    ]


TINYVLA, LEROBOT = printed("tinyvla "), printed("lerobot-", "python -m lerobot.")


def test_commands_are_found():
    """An extraction that finds nothing would pass every test below."""
    assert len(TINYVLA) >= 20
    assert len(LEROBOT) >= 12
    assert sum(len(commands(chapter)) for chapter in CHAPTERS) >= 20
    assert any("--accumulate" in command for command in commands(ROOT / "notebooks/12_scaling.py"))
    names = {command.values[0].split()[0] for command in LEROBOT}
    assert names >= {
        "lerobot-find-port",
        "lerobot-setup-motors",
        "lerobot-calibrate",
        "lerobot-teleoperate",
        "lerobot-record",
        "lerobot-dataset-viz",
        "lerobot-train",
        "lerobot-rollout",
        "lerobot-eval",
    }


@pytest.mark.parametrize("command", TINYVLA)
def test_tinyvla_understands_its_printed_commands(command, capsys):
    words = shlex.split(command)[1:]
    if words == ["--help"]:
        with pytest.raises(SystemExit) as stop:
            cli.parse(words)
        assert not stop.value.code
        return
    assert callable(cli.parse(words))


def unmade(sequence: list[str]) -> list[str]:
    """Commands that, after others have trained, take a checkpoint which none of those makes."""
    made, wrong = set(), []
    for command in sequence:
        program, *words = shlex.split(command.replace("=", " "))
        given = dict(pairwise([*words, ""]))
        verb = words[0] if words else ""
        if program != "tinyvla" or verb not in cli.VERBS:
            continue
        options = inspect.signature(cli.VERBS[verb]).parameters
        if verb == "train":
            made.add(Path(given.get("--out", options["out"].default)) / BEST)
        elif made and "checkpoint" in options and "--policy" not in given:
            taken = Path(given.get("--checkpoint", options["checkpoint"].default))
            wrong += [] if taken in made else [command]
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_later_commands_take_the_checkpoints_that_earlier_ones_make(page):
    assert [command for block in sequences(page) for command in unmade(block)] == []


def refused(command: str) -> list[str]:
    """The options of one of LeRobot's commands that LeRobot does not have, and choices that it does not offer."""
    words = shlex.split(command)
    name = words[2] if words[:2] == ["python", "-m"] else words[0]
    known = FLAGS["commands"].get(name)
    if known is None:
        return [f"LeRobot has no command {name}"]
    plain, choices = {flag for flag in known if "=" not in flag}, dict(f.split("=") for f in known if "=" in f)
    wrong = []
    for word in words:
        if word.startswith("--"):
            flag, _, value = word[2:].partition("=")
            if flag in choices:
                wrong += [word] if value not in choices[flag].split("|") else []
            elif flag not in plain and not any(flag.startswith(f"{one}.") for one in ("robot.cameras",)):
                wrong.append(word)
    return wrong


@pytest.mark.parametrize("command", LEROBOT)
def test_lerobot_has_the_options_of_the_printed_commands(command):
    assert refused(command) == [], f"LeRobot {FLAGS['lerobot']} does not take them"


SERVER = "lerobot.async_inference.policy_server"


@pytest.mark.parametrize("command", printed("tinyvla-lerobot serve"))
def test_the_server_s_options_are_lerobot_s_own(command):
    assert refused(command.replace("tinyvla-lerobot serve", f"python -m {SERVER}")) == []


@pytest.mark.parametrize("command", printed("tinyvla-lerobot to", "tinyvla-lerobot from"))
def test_the_plugin_understands_its_printed_commands(command):
    plugin = pytest.importorskip("lerobot_policy_tinyvla.cli", reason="needs LeRobot", exc_type=ImportError)
    options, rest = plugin.parser().parse_known_args(shlex.split(command)[1:])
    assert rest == []
    assert options.folder.name


def test_a_wrong_option_would_be_noticed():
    with pytest.raises(InputError, match="--episodes-of-training"):
        cli.parse(["train", "--episodes-of-training", "3"])
    with pytest.raises(InputError, match="--output"):
        cli.parse(["train", "--output", "runs/mt50"])
    assert refused("lerobot-train --policy.type=tinyvla --policy.chunks=3") == ["--policy.chunks=3"]
    assert refused("lerobot-train --policy.type=tinyvlo") == ["--policy.type=tinyvlo"]
    assert refused("lerobot-drive --fps=3") == ["LeRobot has no command lerobot-drive"]


def test_a_checkpoint_that_nothing_makes_would_be_noticed():
    train = "tinyvla train --out runs/a"
    for later in ("tinyvla evaluate --checkpoint runs/a", "tinyvla rollout --checkpoint=runs/a", "tinyvla export"):
        assert unmade([train, later]) == [later]
    assert unmade([train, "tinyvla evaluate --checkpoint runs/a/best", "tinyvla rollout --policy expert"]) == []
    assert unmade(["tinyvla train", "tinyvla evaluate"]) == []
    assert unmade(["tinyvla evaluate --checkpoint owner/name"]) == []


def test_the_list_of_options_is_that_of_the_lerobot_that_is_installed():
    lerobot = pytest.importorskip("lerobot", reason="LeRobot is not installed here", exc_type=ImportError)
    if lerobot.__version__ != FLAGS["lerobot"]:
        pytest.skip(f"the list is of LeRobot {FLAGS['lerobot']}, and {lerobot.__version__} is installed")
    import importlib.util

    spec = importlib.util.spec_from_file_location("lerobot_flags", ROOT / "tools/lerobot_flags.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.all_flags()["commands"]["lerobot-train"] == FLAGS["commands"]["lerobot-train"]


def test_pages_say_once_how_the_environment_is_entered():
    """Beyond the first lines, which run on a fresh machine as they are, commands need no `.venv/bin/`."""
    for page in PAGES:
        for line in text_of(page).splitlines():
            if ".venv/bin/" in line and "activate" not in line:
                makes_it = "-m venv" in line or "uv venv" in line or "for `.venv/bin/`" in f"for {line}"
                assert makes_it, f"{page.name}: {line.strip()[:80]}; write it for an activated environment"
