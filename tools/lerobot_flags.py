"""Which options LeRobot's commands take, for the test of the printed commands where LeRobot is not installed.

    python tools/lerobot_flags.py          # in an environment with LeRobot; writes tests/plugin/lerobot_flags.json

The options are read off LeRobot's own configuration classes, with those of the robots, policies, strategies and so on
that the pages speak of; they are kept by command, together with LeRobot's version.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import sys
import types
import typing
from pathlib import Path

TO = Path(__file__).parent.parent / "tests/plugin/lerobot_flags.json"
CONFIGS = {
    "lerobot-train": ("lerobot.scripts.lerobot_train", "TrainPipelineConfig"),
    "lerobot-eval": ("lerobot.scripts.lerobot_eval", "EvalPipelineConfig"),
    "lerobot-record": ("lerobot.scripts.lerobot_record", "RecordConfig"),
    "lerobot-rollout": ("lerobot.scripts.lerobot_rollout", "RolloutConfig"),
    "lerobot-replay": ("lerobot.scripts.lerobot_replay", "ReplayConfig"),
    "lerobot-teleoperate": ("lerobot.scripts.lerobot_teleoperate", "TeleoperateConfig"),
    "lerobot-calibrate": ("lerobot.scripts.lerobot_calibrate", "CalibrateConfig"),
    "lerobot-setup-motors": ("lerobot.scripts.lerobot_setup_motors", "SetupConfig"),
    "lerobot-edit-dataset": ("lerobot.scripts.lerobot_edit_dataset", "EditDatasetConfig"),
    "lerobot.async_inference.policy_server": ("lerobot.async_inference.configs", "PolicyServerConfig"),
    "lerobot.async_inference.robot_client": ("lerobot.async_inference.robot_client", "RobotClientConfig"),
}
"""A command, and where its configuration class is."""
EXPANDED = {
    *("so101_follower", "so101_leader", "opencv", "act", "smolvla", "tinyvla", "pi05", "metaworld", "pusht"),
    *("base", "episodic", "dagger", "sentry", "highlight", "sync", "rtc", "adamw", "cosine_decay_with_warmup", "merge"),
}
"""Choices whose own options are kept; of others only the name is."""
PARSERS = {
    "lerobot-find-port": "lerobot.scripts.lerobot_find_port",
    "lerobot-find-cameras": "lerobot.scripts.lerobot_find_cameras",
    "lerobot-dataset-viz": "lerobot.scripts.lerobot_dataset_viz",
    "lerobot.scripts.augment_dataset_quantile_stats": "lerobot.scripts.augment_dataset_quantile_stats",
    "lerobot.scripts.convert_dataset_v21_to_v30": "lerobot.scripts.convert_dataset_v21_to_v30",
}
"""A command that uses argparse, and its module."""


def classes_in(hint: object) -> list[type]:
    """The dataclasses that a field's annotation names: the class, or those of a union."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [found for part in typing.get_args(hint) for found in classes_in(part)]
    return [hint] if isinstance(hint, type) and dataclasses.is_dataclass(hint) else []


def flags_of(kind: type, prefix: str, known: set[str], depth: int = 0) -> None:
    """Add the options of a configuration class, and of all that can be chosen in it."""
    if depth > 4:
        return
    chosen = getattr(kind, "get_known_choices", dict)()
    if chosen and depth:
        known.add(f"{prefix}type=" + "|".join(sorted(chosen)))
    kinds = [chosen[name] for name in chosen if name in EXPANDED] if chosen and depth else [kind]
    for each in kinds:
        hints = typing.get_type_hints(each)
        for field in dataclasses.fields(each):
            name = prefix + field.name
            known.add(name)
            for inner in classes_in(hints.get(field.name)):
                flags_of(inner, name + ".", known, depth + 1)
    paths = getattr(kind, "__get_path_fields__", list)()
    known |= {f"{prefix}{name}.path" for name in paths} | ({"config_path"} if not depth else set())


def all_flags() -> dict[str, object]:
    """Returns LeRobot's version, and the options of each command."""
    from lerobot import __version__
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    commands = {}
    for command, (module, name) in CONFIGS.items():
        known: set[str] = set()
        flags_of(getattr(importlib.import_module(module), name), "", known)
        commands[command] = sorted(known)
    for command, module in PARSERS.items():
        source = inspect.getsource(importlib.import_module(module))
        commands[command] = sorted(set(re.findall(r'"--([\w.-]+)"', source)))
    return {"lerobot": __version__, "commands": commands}


def main() -> None:
    """Write the list."""
    found = all_flags()
    TO.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {TO.name} of lerobot {found['lerobot']}", file=sys.stderr)


if __name__ == "__main__":
    main()
