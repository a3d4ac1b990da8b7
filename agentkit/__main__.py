"""`python -m agentkit` is the command line."""

from agentkit.cli.main import run

if __name__ == "__main__":
    run()
