"""Tests of the exercises of chapters 2 and 3, measures in motion. The answers are not here."""

from collections.abc import Callable, Iterator

from .exercises_start import Answer, Test

TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {}
