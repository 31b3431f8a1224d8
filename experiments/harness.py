"""What all experiments share: jobs in processes, results that survive a kill, and one file in the end.

An experiment is a file of the same small form:

    class Args(harness.Args)                its options on the command line
    jobs(args) -> list[Job]                 what is to be done, each job with its seed
    run(job, args) -> dict or list of dicts does one job
    summary(rows, args) -> dict             what the results file says
    section(*results) -> str                its section of the results page, from the files named in RESULTS

and ends with `main(Args, jobs, run, summary)`.

Notable:
- with one worker the jobs run in this process, one after another; with more, in as many processes, spread over all
  GPUs, each with one torch thread;
- each finished job is kept in `OUT.part/`. The same command goes on from there after a kill or an error, and deletes
  the folder when the results file is written;
- the results file says which command made it, on what, with which versions, and in how many seconds.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import multiprocessing
import os
import shlex
import shutil
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro
from tqdm.auto import tqdm

from tinyvla.device import choose_device, describe_device, take_turns
from tinyvla.recipes import DataConfig
from tinyvla.stats import spread

Row = dict[str, Any]
NOT_MEASURED = ("workers", "threads", "budget_seconds", "resume")
"""Options that change how the jobs are done and not what comes out of them."""


@dataclass(frozen=True)
class Args:
    """Options that every experiment has."""

    device: str = "cpu"
    """Of the policies: cpu, cuda, or auto."""
    workers: int = 1
    """Processes that share the jobs and the GPUs."""
    threads: int | None = None
    """CPU threads of each process; one where there are several processes, else as many as torch chooses."""
    data: DataConfig = DataConfig()  # noqa: RUF009 - frozen
    """Sizes and seeds of BlockFind's splits."""
    out: Path = Path("results/experiment.json")
    """Where the results go."""

    @property
    def where(self) -> torch.device:
        """The device; in a worker, its own GPU."""
        return choose_device(self.device)

    @property
    def folder(self) -> Path:
        """Where unfinished results lie, and what jobs leave for other jobs."""
        return self.out.with_name(f"{self.out.name}.part")

    def settings(self, *names: str) -> Row:
        """The named options, or all that decide what is measured."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        measured = [name for name, value in values.items() if not (isinstance(value, Path) or name in NOT_MEASURED)]
        return plain({name: values[name] for name in names or measured})


@dataclass(frozen=True)
class Job:
    """One piece of work."""

    what: Row
    """What is done; becomes part of the job's rows."""
    seed: int | None = None
    after: tuple[str, ...] = ()
    """Names of the jobs that must have ended before."""
    alone: bool = False
    """Whether nothing else may run meanwhile, because time or memory is measured."""
    optional: bool = False
    """Whether it is left out where `args.budget_seconds` are over."""

    @property
    def name(self) -> str:
        """What is done, with which seed, in one line."""
        parts = [f"{key} {value}" for key, value in self.what.items()]
        return ", ".join(parts if self.seed is None else [*parts, f"seed {self.seed}"])


Run = Callable[[Job, Any], Row | list[Row]]
SomeArgs = TypeVar("SomeArgs", bound=Args)


def main(
    args_type: type[SomeArgs],
    jobs: Callable[[SomeArgs], list[Job]],
    run: Run,
    summary: Callable[[list[Row], SomeArgs], Row],
    combine: Callable[[Row, Row, SomeArgs], Row] | None = None,
) -> None:
    """Read the command line, do all jobs, write the results.

    Args:
        combine: makes the file's new content from the old one (empty where there was none) and the new results.
    """
    args = tyro.cli(args_type, description=sys.modules["__main__"].__doc__)
    try:
        measure(args, jobs, run, summary, combine)
    except KeyboardInterrupt:
        sys.exit(f"stopped; finished jobs are in {args.folder}, and the same command goes on from there")


def measure(
    args: SomeArgs,
    jobs: Callable[[SomeArgs], list[Job]],
    run: Run,
    summary: Callable[[list[Row], SomeArgs], Row],
    combine: Callable[[Row, Row, SomeArgs], Row] | None = None,
) -> Row:
    """As `main`, with given options; returns what the file says."""
    if args.threads:
        torch.set_num_threads(args.threads)
    machine = describe_device(args.where)
    kept = Kept(args, machine["device"])
    rows = work(run, jobs(args), args, kept)
    header = {"command": recorded_command(places(args)), "machine": machine, "seconds": kept.seconds}
    report = {name: value for name, value in {**header, **summary(rows, args)}.items() if value is not None}
    if combine:
        report = combine(read_json(args.out) or {}, report, args)
    write_json(args.out, report)
    kept.delete()
    print(f"wrote {args.out}, after {kept.seconds:.0f} s")
    return report


class Kept:
    """Rows of finished jobs, in a file that is replaced as a whole whenever there are more."""

    def __init__(self, args: Args, device: str) -> None:
        self.args, self.path = args, args.folder / "jobs.json"
        made_by = {"settings": args.settings(), "device": device}
        before = read_json(self.path) or {"made_by": made_by, "seconds": 0.0, "rows": {}}
        if before["made_by"] != made_by:
            raise SystemExit(f"{args.folder} holds jobs of other settings; delete it, or choose another --out")
        self.made_by, self.rows = made_by, before["rows"]
        self._earlier, self._started = before["seconds"], time.perf_counter()
        args.folder.mkdir(parents=True, exist_ok=True)

    @property
    def seconds(self) -> float:
        """Since the start, with those of earlier calls that were stopped."""
        return self._earlier + time.perf_counter() - self._started

    def add(self, job: Job, rows: list[Row]) -> None:
        """Keep what a job found."""
        self.rows[job.name] = rows
        write_json(self.path, {"made_by": self.made_by, "seconds": self.seconds, "rows": self.rows})

    def delete(self) -> None:
        """Everything is in the results file now."""
        shutil.rmtree(self.args.folder)


def work(run: Run, jobs: Sequence[Job], args: Args, kept: Kept) -> list[Row]:
    """Do the jobs that are not done yet, and return the rows of all of them, in the jobs' order.

    Raises:
        SystemExit: a job failed; the others that had begun are finished and kept before. Or two jobs are the same.
    """
    if twice := [name for name, count in Counter(job.name for job in jobs).items() if count > 1]:
        raise SystemExit(f"a job is to be done twice: {twice[0]}; give each value once")
    waiting, running = [job for job in jobs if job.name not in kept.rows], {}
    budget, failures = getattr(args, "budget_seconds", math.inf), []
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(waiting), unit="job", leave=False)
    with bar, executor(args) as pool:
        while waiting or running:
            if kept.seconds > budget:
                waiting = [job for job in waiting if not job.optional]
            for job in startable(waiting, list(running.values()), kept.rows, args.workers):
                waiting.remove(job)
                running[pool.submit(_one, run, job, args)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                if error := future.exception():
                    failures.append((job, error))
                    waiting.clear()
                else:
                    kept.add(job, future.result())
                    bar.write(f"{kept.seconds:6.0f} s  {job.name}{_figures(future.result())}")
                    bar.update()
    for job, error in failures:
        raise SystemExit(_failure(job, error, args)) from None
    return [row for job in jobs for row in kept.rows.get(job.name, [])]


def startable(waiting: list[Job], running: list[Job], done: Iterable[str], workers: int) -> list[Job]:
    """Jobs that may begin now, in order; one that must be alone holds up those behind it."""
    if any(job.alone for job in running):
        return []
    chosen: list[Job] = []
    for job in waiting:
        if len(running) + len(chosen) >= workers:
            break
        if not set(job.after) <= set(done):
            continue
        if job.alone:
            return chosen if chosen or running else [job]
        chosen.append(job)
    if waiting and not chosen and not running:
        missing = ", ".join(set(waiting[0].after) - set(done))
        raise ValueError(f"the job ({waiting[0].name}) waits for another that nobody does: {missing}")
    return chosen


def executor(args: Args) -> Executor:
    """This process for one worker, a pool of others for more."""
    if args.workers == 1:
        return ThisProcess()
    context = multiprocessing.get_context("spawn")
    begin = (context.Value("i", 0), args.threads or 1)
    return ProcessPoolExecutor(args.workers, context, _begin_worker, begin)


class ThisProcess(Executor):
    """Does each job at once."""

    def submit(self, function: Callable[..., Any], /, *inputs: Any) -> Future[Any]:  # type: ignore[override]
        """Returns a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*inputs))
        except Exception as error:
            error.add_note(traceback.format_exc())
            future.set_exception(error)
        return future


def _begin_worker(counter: Any, threads: int) -> None:
    """A worker keeps to one GPU and to its threads, and ends when the process that started it does."""
    with counter.get_lock():
        number, counter.value = counter.value, counter.value + 1
    take_turns(number)
    torch.set_num_threads(threads)

    def follow() -> None:
        multiprocessing.parent_process().join()  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _one(run: Run, job: Job, args: Args) -> list[Row]:
    """A job's rows: what was done, with which seed, and what came out."""
    found = run(job, args)
    if args.where.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
    about = job.what if job.seed is None else {**job.what, "seed": job.seed}
    return [plain({**about, **row}) for row in (found if isinstance(found, list) else [found])]


def _figures(rows: list[Row], most: int = 4) -> str:
    """The first figures of a job, for the terminal."""
    figures = [f"{name} {value:.4g}" for name, value in rows[-1].items() if isinstance(value, float)] if rows else []
    return "".join(f"  {text}" for text in figures[:most])


def _failure(job: Job, error: BaseException, args: Args) -> str:
    """One line for the terminal; the traceback goes to a file."""
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    trace = args.folder / "failure.txt"
    trace.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    again = "finished jobs are kept, and the same command goes on from there"
    return f"the job ({job.name}) failed with {told}; traceback in {trace}; {again}"


def recorded_command(places: Sequence[str] = ("--out",)) -> str:
    """The script's command as a results file records it, without the options that say where files go."""
    arguments, kept = sys.argv[1:], []
    while arguments:
        argument = arguments.pop(0)
        if argument in places:
            arguments = arguments[1:]
        elif argument.split("=")[0] not in places:
            kept.append(argument)
    return shlex.join(["python", f"experiments/{os.path.basename(sys.argv[0])}", *kept])


def places(args: Args) -> list[str]:
    """The options that say where files go."""
    names = [f.name for f in dataclasses.fields(args) if isinstance(getattr(args, f.name), Path)]
    return [f"--{name.replace('_', '-')}" for name in names]


def plain(value: Any) -> Any:
    """The same as JSON gives it back: tuples are lists, keys are strings."""
    return json.loads(json.dumps(value, default=dataclasses.asdict))


def read_json(path: Path) -> Any:
    """What a file holds; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_json(path: Path, content: Any) -> None:
    """All of it or nothing: a kill never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def groups(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows that agree in the keys, in the order in which the first of each came."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def spreads(rows: Sequence[Row], names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Spread of each figure over the rows."""
    return {name: spread([row[name] for row in rows]) for name in names}
