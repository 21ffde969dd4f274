"""`python -m dht_bootstrap` is `ctpeer-bootstrap`."""

from dht_bootstrap.main import main

if __name__ == "__main__":
    main()
