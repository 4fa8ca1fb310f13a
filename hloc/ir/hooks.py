"""What the IR needs of the layers above it: `hloc/__init__.py` puts it here."""

from __future__ import annotations

from collections.abc import Callable

text_form: Callable[..., str]
"""`text_form(module, **options)` is the printer's text of a module."""
