"""Defines all commands of `awares`, and implements the commands that are not jobs."""
