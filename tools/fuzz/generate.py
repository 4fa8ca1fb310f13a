"""Random modules: `generate(seed)` is a typed, valid program with arguments, the same for the same seed."""

from __future__ import annotations

from hloc.errors import HloError
from tools.fuzz import contractions, devices, elementwise, folds, indexing, movement, sizes
from tools.fuzz.control import Control
from tools.fuzz.maker import Case, Maker

_DEEPEST = 2
_SEVERAL_DEVICES = 0.08


class Generator:
    """Chooses recipes. `families` names those to choose from; all by default."""

    def __init__(self) -> None:
        self.simple = {
            recipe: weight
            for family in (elementwise, movement, folds, contractions, indexing, sizes)
            for recipe, weight in family.RECIPES.items()
        }
        self.all = {**self.simple, **Control(self.step).recipes}
        self.used: list[str] = []

    def step(self, m: Maker) -> None:
        """Add what one recipe makes to the pool; the arrays in a tuple one by one."""
        recipes = self.all if m.depth < _DEEPEST else self.simple
        # Within other computations, not all devices may come to the same op.
        if m.devices != (1, 1) and m.depth == 0 and m.draw.chance(0.4):
            recipes = devices.RECIPES
        recipe = m.draw.choice(recipes, recipes.values())
        self.used.append(recipe.__name__.strip("_"))
        made = recipe(m)
        m.pool += m.leaves(made)

    def case(self, seed: int) -> Case:
        m = Maker(seed)
        if m.draw.chance(_SEVERAL_DEVICES):
            m.devices = m.draw.choice(devices.COUNTS)
        for _ in range(m.draw.choice((1, 2, 3, 4, 6, 9), (3, 4, 4, 3, 1.5, 0.7))):
            self.step(m)
        return m.finish(self.used)


def generate(seed: int) -> Case:
    """The module of a seed with its arguments."""
    generator = Generator()
    try:
        return generator.case(seed)
    except HloError as error:
        raise RuntimeError(f"seed {seed}: {generator.used[-1]} made no valid instruction: {error}") from error
