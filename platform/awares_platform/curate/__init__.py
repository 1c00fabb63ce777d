"""The curate job: label for each sample whether crops are needed, and which ones."""
