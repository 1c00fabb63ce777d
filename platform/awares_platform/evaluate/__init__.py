"""The evaluate job compares all policies on the same held-out questions."""
