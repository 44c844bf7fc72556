"""Shared by all other packages: errors, argument checks, atomic files, provenance, text helpers."""
