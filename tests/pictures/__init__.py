"""The pictures of docs/images, from what a Prometheus measured on this machine: ``make images``, some four minutes."""
