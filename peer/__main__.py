"""`python -m peer` is `ctpeer`."""

from peer.cli.main import main

if __name__ == "__main__":
    main()
