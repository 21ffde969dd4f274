"""The swarm as a whole, seen from outside: an exporter that trains nothing and believes little."""
