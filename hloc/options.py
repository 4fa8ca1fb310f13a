"""Options: everything that a compile may be told, in one frozen record. There are no environment switches."""

from __future__ import annotations

import os

from hloc.records import record


@record
class Options:
    """What a compile may be told. The defaults are XLA's where it has such a choice."""

    pipeline: str | None = None
    """Passes to run: a pipeline's name, or passes separated by commas. None: the target's own pipeline."""

    disabled_passes: tuple[str, ...] = ()
    """Names of passes to leave out."""

    load: tuple = ()
    """Passes that are not hloc's own, for their places in the pipeline or to be named: paths of Python files, names
    of entry points of installed packages, or functions and classes. See `hloc.passes.api`."""

    until: str | None = None
    """Name of the last pass to run, or its number in the report."""

    print_after: tuple[str, ...] = ()
    """Names of passes, or numbers of their runs, after which the module's text goes into the report; `all` for each."""

    dump_to: str | os.PathLike | None = None
    """Directory that receives the module's text after each pass that changed it, and an index of passes."""

    dump_constants: bool = True
    """Dumps and printed texts have constants of more than ten elements in full; else they stand as `{...}`."""

    cache: bool = True
    """Take the compiled program from the user's cache folder if it is there, and keep it there if it is not."""

    fold_result_bytes: int = 64 * 1024
    """Constant folding makes no constant larger than this."""

    fold_work: int = 20_000_000
    """Scalar operations that constant folding may spend on a module."""

    fold_seconds: float = 10.0
    """Time after which constant folding stops; a guard only, `fold_work` decides long before."""

    inline_growth: int = 20_000
    """Instructions that inlining computations with several callers may add to a module."""

    unroll_instructions: int = 600
    """Instructions of one loop, all turns together, that are written out at most."""

    unroll_growth: int = 2_000
    """Instructions that writing out loops may add to a module."""

    fusion_instructions: int = 300
    """Instructions in one fusion at most."""

    fusion_operands: int = 64
    """Operands plus results of one fusion at most."""

    explain_fusion: bool = False
    """Let fusion tell in remarks of each value and user whether they share a kernel, and why."""

    replica_count: int | None = None
    """Replicas to compile for; None: as many as the module says. Likewise `num_partitions`."""

    num_partitions: int | None = None

    flush_denormals: bool = True
    """Denormal inputs and results of float operations count as zero; elementary functions are exact within, and
    flush what they are given and what they give."""

    fast_math: bool = False
    """Float rewrites by LLVM that change results: reassociation, reciprocals, no NaN, no infinity. The code of
    elementary functions and of LAPACK stays as it is."""

    fma: bool = False
    """A multiply and an add of the program may become one operation that rounds once, where LLVM sees fit.

    XLA's CPU backend always allows it; here it is off, so that a program's numbers are the evaluator's. Products in
    dot and convolution are added so whatever this says, as in XLA."""

    num_threads: int = 0
    """Threads that work on a kernel at most; 0: as many as this process may use. Results do not depend on it."""

    allow_tf32: bool = False
    """Products of f32 matrices on a GPU's matrix units may round their operands to tf32 (10 bits of mantissa), where
    their `operand_precision` is the default; sums stay f32. Off, f32 is multiplied in full."""

    donate: bool = False
    """Each call gives up the arguments that the module's `input_output_alias` names: the program writes a result into
    the same memory, and the caller gets that array back as the result. For programs of one device, on the CPU; with
    guard pages and in the evaluator arguments stay what they are."""

    guard_pages: str = ""
    """For debugging: "end" lays every buffer against an inaccessible page behind it, "start" against one before it.
    An access beyond a buffer then ends the process, with a message. The empty string: nothing is guarded."""

    @property
    def numbers(self) -> str:
        """How floats are computed, in one line: for dumps."""
        names = ("flush_denormals", "fast_math", "fma")
        return ", ".join(f"{name}={'on' if getattr(self, name) else 'off'}" for name in names)
