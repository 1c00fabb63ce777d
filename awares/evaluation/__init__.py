"""Score answers, measure the decisions to crop, and summarise with confidence intervals."""
