"""The reports of a study and of a comparison of two studies."""
