"""The one error that users meet: something they gave cannot be used."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what was wrong and what is allowed."""
