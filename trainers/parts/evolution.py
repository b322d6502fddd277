"""An evolutionary search over lists of choices, under a limit of their cost.

Source: AutoFormer (Chen et al., ICCV 2021), whose search NOAH uses: the best live on, some of them are mutated, pairs
of them are crossed, and new ones are drawn.
"""
from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clip import InputError

Genes = tuple[int, ...]
_TRIES = 50                             # draws for each place, before it stays empty


@dataclass(frozen=True)
class Evolution:
    """What is searched, and how.

    Attributes:
        choices: of every gene, ascending. length: of a candidate. cost: of one. limit: that none may exceed.
        size: of a population. parents: the best, which live on. mutated, crossed: how many of the others are made so.
        mutation: probability that a gene of a mutated one is drawn again.
        seed: of all draws; a generation's depend on it, on its number and on the one before alone.
    Raises:
        InputError: no candidate meets the limit; numbers that make no population.
    """

    choices: Sequence[int]
    length: int
    cost: Callable[[Genes], int]
    limit: int
    size: int = 50
    parents: int = 10
    mutated: int = 20
    crossed: int = 20
    mutation: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        choices = list(self.choices)
        if not choices or choices != sorted(set(choices)) or choices[0] < 0:
            raise InputError(f"The choices of a search must be different numbers from 0 up, ascending, got {choices}.")
        least = self.cost((choices[0],) * self.length)
        if least > self.limit:
            raise InputError(f"No network meets the limit of {self.limit:,} parameters: the smallest has {least:,}. "
                             "Raise the limit, or allow smaller choices.")
        if not (1 <= self.parents and self.parents + self.mutated + self.crossed <= self.size
                and min(self.mutated, self.crossed) >= 0):
            raise InputError("A population must hold its parents (at least 1), mutated and crossed ones, got a size of "
                             f"{self.size} for {self.parents}, {self.mutated} and {self.crossed}.")

    def population(self, generation: int, former: Sequence[Genes]) -> list[Genes]:
        """The candidates of a generation, all different as far as there are as many.

        Args:
            former: those of the generation before, the best first; none in generation 0.
        """
        draw = random.Random(f"{self.seed} {generation}")
        best = list(former[:self.parents])
        found = list(best)
        if best:
            self._add(found, self.mutated, draw, lambda: tuple(
                draw.choice(self.choices) if draw.random() < self.mutation else gene for gene in draw.choice(best)))
            self._add(found, self.crossed, draw, lambda: tuple(
                map(draw.choice, zip(draw.choice(best), draw.choice(best), strict=True))))
        self._add(found, self.size - len(found), draw, lambda: self._random(draw))
        return found

    def _random(self, draw: random.Random) -> Genes:
        return tuple(draw.choice(self.choices) for _ in range(self.length))

    def _add(self, found: list[Genes], count: int, draw: random.Random, make: Callable[[], Genes]) -> None:
        for _ in range(count):
            for _ in range(_TRIES):
                if self.cost(genes := make()) > self.limit:
                    genes = self._within(genes, draw)
                if genes not in found:
                    found.append(genes)
                    break

    def _within(self, genes: Genes, draw: random.Random) -> Genes:
        """Genes drawn at random become the next smaller choice until the limit is met."""
        genes = list(genes)
        while self.cost(tuple(genes)) > self.limit:
            place = draw.choice([i for i, gene in enumerate(genes) if gene > self.choices[0]])
            genes[place] = self.choices[self.choices.index(genes[place]) - 1]
        return tuple(genes)
