"""`tinyvla-lerobot`: checkpoints from TinyVLA to LeRobot and back, and LeRobot's asynchronous server for TinyVLA."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tinyvla.errors import InputError
from tinyvla.fields import check

from .convert import from_lerobot, to_lerobot


def camera(text: str) -> tuple[str, tuple[int, int]]:
    """Returns the key and the height and width behind KEY=HEIGHTxWIDTH.

    Raises:
        InputError: the text is not of this form.
    """
    key, _, size = text.partition("=")
    sides = size.split("x")
    fits = len(sides) == 2 and all(side.isdecimal() and 0 < int(side) <= 8_192 for side in sides)
    check(bool(key) and fits, f"--camera is {text!r}; it must be such as observation.images.front=480x640")
    return key, (int(sides[0]), int(sides[1]))


def serve(options: Sequence[str]) -> None:
    """Run LeRobot's asynchronous policy server with TinyVLA among the policies that it takes.

    Its list of policies is fixed, and it does not look for installed ones; its options are LeRobot's own.
    """
    from lerobot.async_inference import constants, policy_server

    if "tinyvla" not in constants.SUPPORTED_POLICIES:
        constants.SUPPORTED_POLICIES.append("tinyvla")
    sys.argv = ["tinyvla-lerobot serve", *options]
    policy_server.serve()


def parser() -> argparse.ArgumentParser:
    """The options."""
    root = argparse.ArgumentParser("tinyvla-lerobot", description=__doc__)
    verbs = root.add_subparsers(dest="verb", required=True)
    for verb, what in (("to", "from TinyVLA to LeRobot"), ("from", "from LeRobot to TinyVLA")):
        one = verbs.add_parser(verb, help=f"convert a checkpoint {what}")
        one.add_argument("checkpoint", help="its folder")
        one.add_argument("folder", type=Path, help="where to write; must not exist")
    to = verbs.choices["to"]
    to.add_argument("--camera", action="append", default=[], metavar="KEY=HEIGHTxWIDTH", help="the robot's cameras")
    to.add_argument("--execute", type=int, help="actions of a chunk that are done before the policy looks again")
    to.add_argument("--device", default="cpu", help="where LeRobot shall run it")
    verbs.add_parser("serve", help="LeRobot's asynchronous policy server", add_help=False)
    return root


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; what a user can get wrong ends as one line and exit code 2."""
    options, rest = parser().parse_known_args(arguments)
    try:
        if options.verb == "serve":
            return serve(rest)
        check(not rest, f"unknown options: {' '.join(rest)}")
        if options.verb == "from":
            written = from_lerobot(options.checkpoint, options.folder)
        else:
            cameras = dict(camera(text) for text in options.camera)
            written = to_lerobot(options.checkpoint, options.folder, cameras, options.execute, options.device)
        print(f"wrote {written}")
    except InputError as error:
        sys.exit(_one_line(error))


def _one_line(error: InputError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
