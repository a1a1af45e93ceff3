"""Moves requests; knows no grant. Of ``proxy.tokens`` it uses ``proxy.tokens.source`` only."""
