"""Compares all policies on the same held-out questions. This is the evaluate job."""
