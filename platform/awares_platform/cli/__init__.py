"""The command line. It defines all commands, and implements the commands that are not jobs."""
