"""`python -m lerobot_policy_tinyvla`, the same as `tinyvla-lerobot`."""

from .cli import main

if __name__ == "__main__":
    main()
