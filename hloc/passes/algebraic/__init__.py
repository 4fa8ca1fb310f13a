"""Algebraic clean-up: small rules by family, each with its algebra, applied until none fires."""
