"""Elementary functions as LLVM IR: inline, free of branches and library calls, so that loops vectorize."""

from .functions import FUNCTIONS, call, call_complex, call_inlined

__all__ = ["FUNCTIONS", "call", "call_complex", "call_inlined"]
