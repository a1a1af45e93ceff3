"""What ``check`` looks at, and how it says what it found; ``token`` shares the exchanges."""
