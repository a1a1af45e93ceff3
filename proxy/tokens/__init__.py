"""Keeps tokens; knows no HTTP request of a CRM."""
