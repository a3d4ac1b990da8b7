"""The entry point of the embedded network's process."""

from agentkit.embedded.network import main

if __name__ == "__main__":
    main()
