"""Built-in cache policies: a policy registers by being in this folder."""
