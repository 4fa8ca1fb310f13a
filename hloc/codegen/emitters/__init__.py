"""The emitters, a file a family. Importing this fills the tables ELEMENTS and KERNELS."""

from hloc.codegen.emitters import data_movement, elementwise, indexing

__all__ = ["data_movement", "elementwise", "indexing"]
