"""Answers to the exercises of every chapter, one file each, for `tests/test_exercises.py`."""
