"""The command line: programs to run, and the user's commands."""
