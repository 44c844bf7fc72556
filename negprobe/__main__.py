"""`python -m negprobe`: the command line, where its script is not on the path."""

from negprobe.cli import app

app(prog_name="negprobe")
