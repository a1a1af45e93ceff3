"""opentv-auth-proxy: an authenticating reverse proxy for callers that know nothing of OAuth."""

__version__ = "0.1.0"
