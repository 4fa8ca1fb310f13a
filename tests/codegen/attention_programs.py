"""Texts of attentions, for the tests of every target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Program:
    """dot(softmax(f(dot(q, k))), v) over batch dimensions, with the parts of its text.

    `q`, `k`, `v` are lists of the dimensions' letters in the operands: a and b are batches, m rows, n columns, d the
    depth, e the width. `keys_first` and `weights_first` tell the order of the products' operands.
    """

    sizes: dict[str, int]
    q: str = "amd"
    k: str = "and"
    v: str = "ane"
    dtype: str = "f32"
    keys_first: bool = False
    weights_first: bool = True
    masked: bool = False
    scaled_queries: bool = False
    after: str = ""

    def shape(self, letters: str, dtype: str | None = None) -> str:
        return f"{dtype or self.dtype}[{','.join(str(self.sizes[x]) for x in letters)}]"

    def dot(self, name: str, one: tuple[str, str], other: tuple[str, str], contracted: str) -> tuple[str, str]:
        """The text of a product, and the letters of its result."""
        batch = [x for x in one[1] if x in other[1] and x not in contracted]
        rest = [x for x in one[1] + other[1] if x not in batch and x not in contracted]
        letters = "".join([*batch, *rest])
        parts = []
        for side, (_, given) in (("lhs", one), ("rhs", other)):
            parts.append(f"{side}_batch_dims={{{','.join(str(given.index(x)) for x in batch)}}}")
            parts.append(f"{side}_contracting_dims={{{','.join(str(given.index(x)) for x in contracted)}}}")
        return f"{name} = {self.shape(letters)} dot({one[0]}, {other[0]}), {', '.join(parts)}", letters

    @property
    def text(self) -> str:
        T = self.dtype
        lines = [f"{name} = {self.shape(getattr(self, name))} parameter({i})" for i, name in enumerate("qkv")]
        query = "q"
        if self.scaled_queries:
            lines += [f"two = {T}[] constant(2)", f"twos = {self.shape(self.q)} broadcast(two), dimensions={{}}"]
            lines += [f"qq = {self.shape(self.q)} divide(q, twos)"]
            query = "qq"
        given = (query, self.q), ("k", self.k)
        line, letters = self.dot("scores", *(given[::-1] if self.keys_first else given), "d")
        lines.append(line)
        full, rows = self.shape(letters), letters.replace("n", "")
        at = ",".join(str(letters.index(x)) for x in rows)
        given = "scores"
        if self.masked:
            lines += [f"i = {self.shape(letters, 's32')} iota(), iota_dimension={letters.index('m')}"]
            lines += [f"j = {self.shape(letters, 's32')} iota(), iota_dimension={letters.index('n')}"]
            lines += [f"past = {self.shape(letters, 'pred')} compare(i, j), direction=GE"]
            lines += [f"no = {T}[] constant(-inf)", f"nos = {full} broadcast(no), dimensions={{}}"]
            lines += [f"masked = {full} select(past, scores, nos)"]
            given = "masked"
        fold = f"dimensions={{{letters.index('n')}}}"
        lines += [f"low = {T}[] constant(-inf)", f"zero = {T}[] constant(0)"]
        lines += [f"most = {self.shape(rows)} reduce({given}, low), {fold}, to_apply=max"]
        lines += [f"mosts = {full} broadcast(most), dimensions={{{at}}}", f"less = {full} subtract({given}, mosts)"]
        lines += [f"power = {full} exponential(less)"]
        lines += [f"sum = {self.shape(rows)} reduce(power, zero), {fold}, to_apply=add"]
        lines += [f"sums = {full} broadcast(sum), dimensions={{{at}}}", f"p = {full} divide(power, sums)"]
        operands = (("p", letters), ("v", self.v))
        line, letters = self.dot("o", *(operands if self.weights_first else operands[::-1]), "n")
        root = line if not self.after else f"{line}\n  {self.after.format(shape=self.shape(letters))}"
        lines.append(root if self.after else f"ROOT {root}")
        body = "\n  ".join(lines)
        reducers = [
            f"{name} {{ x = {T}[] parameter(0) y = {T}[] parameter(1) ROOT r = {T}[] {op}(x, y) }}"
            for name, op in (("max", "maximum"), ("add", "add"))
        ]
        return "HloModule m\n" + "\n".join(reducers) + f"\nENTRY e {{\n  {body}\n}}\n"


SIZES = {"a": 2, "b": 3, "m": 14, "n": 20, "d": 8, "e": 6}
