"""The curate job decides for each sample whether the policy needs crops, and which crops."""
