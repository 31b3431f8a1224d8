"""The command line's verb `evaluate`: a policy on test scenes, on kinds of sentences, or on recordings."""

from __future__ import annotations

from pathlib import Path

from tinyvla.app.cli_measure import Checkpoint, DeviceName, JsonFlag, load, print_report, print_sentences
from tinyvla.app.cli_recordings import judge
from tinyvla.app.given import refuse
from tinyvla.fields import MANY, Within, check_number
from tinyvla.recipes import DataConfig


def evaluate(
    checkpoint: Checkpoint = Path("checkpoints/best"),
    num_samples: int = 1_000,
    device: DeviceName = "auto",
    json: JsonFlag = False,
    dataset: str = "",
    val_episodes: float | None = None,
    states: tuple[str, ...] = (),
    leave_out: tuple[int, ...] = (),
    sentences: bool = False,
) -> None:
    """Judge a policy on the test split, beside floors and the instruction swap; with --dataset, on recordings.

    On recordings: the error of each number of an action in its own unit, beside floors: the last action repeated, the
    mean one, and the policy itself with other images, other words and another state.

    Args:
        num_samples: Test scenes; of each kind of sentence, with --sentences.
        dataset: A LeRobotDataset: its folder, or owner/name on the Hugging Face hub.
        val_episodes: Share of its episodes to judge on; those that the policy's run held out unless given.
        states: Keys whose numbers make the robot's state; the run's, or observation.state, unless given.
        leave_out: Episodes that are not judged on, by number; those of the run unless given.
        sentences: Judge it by kind of sentence instead: paraphrases, relations, negation, words that are held out.
    """
    check_number("--num-samples", num_samples, MANY)
    if dataset:
        refuse(("num_samples", "sentences"), "for BlockFind's scenes, and --dataset is of recordings")
        if val_episodes is not None:
            check_number("--val-episodes", val_episodes, Within(0, 0.9, above=True), whole=False)
        judge(checkpoint, DataConfig(dataset=dataset, states=states, leave_out=leave_out), val_episodes, device, json)
        return
    refuse(("val_episodes", "states", "leave_out"), "for recordings (name them with --dataset)")
    policy = load(checkpoint, device, blocks=True, instead=" (--dataset judges others on recordings)")
    report = print_sentences if sentences else print_report
    report(policy, num_samples, DataConfig(), as_json=json)
