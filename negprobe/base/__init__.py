"""What every other package uses: errors, argument checks, atomic files, provenance, text helpers."""
