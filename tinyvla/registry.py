"""The kinds of fusion and of action head that a configuration can name, each with the place of its class.

Notable:
- this is the one list: configurations check names against it, the command line offers it, `TinyVLA` builds from it;
- a class is imported when it is first built, so checking a name costs no import of torch;
- `register` adds your own, in a notebook cell or in a module of yours; nothing in this package needs an edit.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator

from tinyvla.errors import InputError
from tinyvla.fields import check, shown


class Kinds:
    """Names of one sort of part, in order, and the classes behind them.

    Args:
        what: the sort, for messages: "fusion" or "head".
        places: the module and class of each built-in kind, as "module:Class".
    """

    def __init__(self, what: str, places: dict[str, str]) -> None:
        self.what = what
        self._places = places
        self._registered: dict[str, type] = {}

    def __iter__(self) -> Iterator[str]:
        return iter((*self._places, *self._registered))

    def check(self, name: str) -> None:
        """Refuse a name that is not in the list.

        Raises:
            InputError: it is not; the message lists the names that are.
        """
        if name not in tuple(self):
            known = ", ".join(self)
            hint = f"or define it and add it with @tinyvla.register({self.what!r}, {name!r})"
            raise InputError(f"unknown {self.what} {name!r}; choose from {known}, {hint}")

    def __getitem__(self, name: str) -> type:
        """Returns the class of a kind.

        Raises:
            InputError: there is no such kind.
        """
        self.check(name)
        if name in self._registered:
            return self._registered[name]
        module, class_name = self._places[name].split(":")
        return getattr(importlib.import_module(module), class_name)

    def add(self, name: str, cls: type) -> None:
        """Add a class, or replace one that was added under the same name.

        Raises:
            InputError: the name is one of the built-in kinds.
        """
        check(isinstance(name, str) and bool(name), f"the name is {shown(name)}; it must be text")
        check(isinstance(cls, type), f"{shown(cls)} cannot be registered as a {self.what}; it must be a class")
        if name in self._places:
            raise InputError(f"the {self.what} {name!r} is built in; register yours under another name")
        self._registered[name] = cls


FUSIONS = Kinds(
    "fusion",
    {
        "cross-attention": "tinyvla.model.fusion:CrossAttention",
        "prefix": "tinyvla.model.fusion:Prefix",
        "fusion-tokens": "tinyvla.model.fusion:FusionTokens",
        "gated": "tinyvla.model.fusion:Gated",
        "concat": "tinyvla.model.fusion:Concat",
        "pool-add": "tinyvla.model.fusion:PoolAdd",
        "vision-only": "tinyvla.model.fusion:VisionOnly",
        "language-only": "tinyvla.model.fusion:LanguageOnly",
    },
)
ABLATION_KINDS = ("vision-only", "language-only")
"""These are no fusions. Each drops one input, to show what the other alone is worth."""
FUSION_KINDS = tuple(kind for kind in FUSIONS if kind not in ABLATION_KINDS)
"""The built-in fusions."""

HEADS = Kinds(
    "head",
    {
        "regression": "tinyvla.model.heads.regression:RegressionHead",
        "l1": "tinyvla.model.heads.regression:RegressionHead",
        "directions": "tinyvla.model.heads.regression:DirectionsHead",
        "bins": "tinyvla.model.heads.tokens:BinsHead",
        "fast": "tinyvla.model.heads.tokens:FastHead",
        "flow": "tinyvla.model.heads.denoising:FlowHead",
        "diffusion": "tinyvla.model.heads.denoising:DiffusionHead",
    },
)
HEAD_KINDS = tuple(HEADS)
"""The built-in heads."""


def register(what: str, name: str) -> Callable[[type], type]:
    """Returns a decorator that adds a class to the kinds that a configuration can name.

        @tinyvla.register("fusion", "mine")
        class Mine(Fusion): ...

        policy = TinyVLA(model_config("nano", fusion="mine"))

    Args:
        what: "fusion" or "head".
        name: what configurations call it. A cell that is run again replaces its class.

    Raises:
        InputError: `what` is neither, or the name is taken by a built-in kind.
    """
    lists = {kinds.what: kinds for kinds in (FUSIONS, HEADS)}
    if what not in lists:
        raise InputError(f"cannot register a {what!r}; choose from {', '.join(lists)}")

    def add(cls: type) -> type:
        lists[what].add(name, cls)
        return cls

    return add
