"""Which text a peer trains on, how it is verified, read and streamed."""
