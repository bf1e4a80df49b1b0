"""Built-in decoders: a decoder registers by being in this folder."""
