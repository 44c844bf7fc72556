"""The report of a study, and of a comparison of two."""
