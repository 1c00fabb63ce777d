"""The evaluate job: all policies on the same held-out questions."""
