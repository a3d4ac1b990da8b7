from support.command_line import cli

__all__ = ["cli"]
