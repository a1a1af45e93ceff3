"""One adapter a system: request bytes out, reply bytes in, no I/O."""
