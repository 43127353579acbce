"""Tests of the exercises of chapters 4 and 5, noising and reversal. The answers are not here."""

from collections.abc import Callable, Iterator

from .exercises_start import Answer, Test

TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {}
