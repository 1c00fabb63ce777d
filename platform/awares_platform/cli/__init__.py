"""The command line: the table of commands, and the commands that are not jobs."""
