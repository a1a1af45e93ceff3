"""Side-by-side measurements of the gateway and of the proxies an operator might have used instead (``make bench``)."""
