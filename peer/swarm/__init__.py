"""How peers find and talk to each other: streams, signed records, membership, hashed transfer."""
