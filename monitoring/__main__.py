"""`python -m monitoring` is `ctpeer-monitor`."""

from monitoring.main import main

if __name__ == "__main__":
    main()
